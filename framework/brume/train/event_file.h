#pragma once
// TensorBoard's event files: records of protocol buffers. A record is its length, the masked CRC-32C of the length, the bytes, and the
// masked CRC-32C of the bytes, all little-endian (tensorflow/core/lib/io/record_writer.h).
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace brume {

/// Returns CRC-32C (Castagnoli, RFC 3720, appendix B.4) of the bytes.
uint32_t crc32c(std::string_view bytes);

/// Returns the record of these bytes.
std::string event_record(std::string_view bytes);

/// A protocol buffer being written, field by field (protobuf.dev, "Encoding").
class Message {
 public:
  Message& number(int field, uint64_t value);         ///< a varint: int64, enum
  Message& real(int field, double value);             ///< double
  Message& single(int field, float value);            ///< float
  Message& bytes(int field, std::string_view value);  ///< string, bytes, or a message
  Message& message(int field, const Message& value) { return bytes(field, value.text_); }
  const std::string& text() const { return text_; }

 private:
  void varint(uint64_t value);
  void key(int field, int wire_type) { varint(uint64_t(field) << 3 | uint64_t(wire_type)); }
  std::string text_;
};

/// Removes the records of later steps than `step`, and what follows a damaged or half-written record. Does nothing if there is no file.
void trim_events(const std::filesystem::path& file, int64_t step);

}  // namespace brume
