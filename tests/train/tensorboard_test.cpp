// Event files, read back by a decoder that shares nothing with the writer; by protoc too if it is installed.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <map>

#include "brume/config/yaml.h"
#include "brume/image/image.h"
#include "brume/train/event_file.h"
#include "brume/train/tensorboard.h"
#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

/// CRC-32C bit by bit, from the polynomial x^32 + ... = 0x1edc6f41 and the reflected definition of RFC 3720.
uint32_t slow_crc(const std::string& bytes) {
  uint32_t c = 0xffffffff;
  for (const char byte : bytes)
    for (int bit = 0; bit < 8; ++bit) {
      const uint32_t in = (uint8_t(byte) >> bit & 1) ^ (c & 1);
      c = (c >> 1) ^ (in ? 0x82f63b78u : 0);
    }
  return c ^ 0xffffffff;
}

uint32_t masked(const std::string& bytes) {
  const uint32_t c = slow_crc(bytes);
  return uint32_t(((uint64_t(c) >> 15) | (uint64_t(c) << 17)) + 0xa282ead8ull);
}

/// The fields of a message by number: the bytes of those with a length, the value of the others as text.
std::multimap<int, std::string> fields(const std::string& message) {
  std::multimap<int, std::string> all;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const uint8_t b = uint8_t(message.at(at++));
      value |= uint64_t(b & 127) << shift;
      if (b < 128) return value;
    }
  };
  while (at < message.size()) {
    const uint64_t key = varint();
    switch (key & 7) {
      case 0: all.emplace(int(key >> 3), std::to_string(varint())); break;
      case 1: {
        double v;
        std::memcpy(&v, &message.at(at), 8), at += 8;
        all.emplace(int(key >> 3), std::to_string(v));
        break;
      }
      case 5: {
        float v;
        std::memcpy(&v, &message.at(at), 4), at += 4;
        all.emplace(int(key >> 3), std::to_string(v));
        break;
      }
      case 2: {
        const uint64_t size = varint();
        all.emplace(int(key >> 3), message.substr(at, size)), at += size;
        break;
      }
      default: throw std::runtime_error("wire type");
    }
  }
  return all;
}

std::string field(const std::string& message, int number) {
  const auto all = fields(message);
  const auto at = all.find(number);
  return at == all.end() ? "" : at->second;
}

std::vector<std::string> events_of(const std::string& file) {
  const std::string bytes = read_text(file);
  std::vector<std::string> all;
  for (size_t at = 0; at < bytes.size();) {
    uint64_t size;
    uint32_t crc;
    std::memcpy(&size, &bytes.at(at), 8);
    std::memcpy(&crc, &bytes.at(at + 8), 4);
    EXPECT_EQ(crc, masked(bytes.substr(at, 8)));
    const std::string event = bytes.substr(at + 12, size);
    std::memcpy(&crc, &bytes.at(at + 12 + size), 4);
    EXPECT_EQ(crc, masked(event));
    all.push_back(event);
    at += size + 16;
  }
  return all;
}

const Value configuration =
    parse_yaml("train: {steps: 10, optimizer: {lr: 1.0e-3}, data: shapes}\nmodel: {flag: true}\nsample: {steps: 4}\n", "c");

TEST(EventFile, Crc32cOfKnownTexts) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);              // the check value of the catalogue of CRCs
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);    // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);  // the same
}

TEST(TensorBoard, WritesScalarsImagesTextAndHyperparameters) {
  const TempFolder folder;
  TensorBoardLog log(folder.path(), configuration, 0);
  log.scalars(300, {{"loss", 0.25}, {"lr", 1e-3}});
  write_png(folder.file("x.png"), Image(2, 3, 3, 7));
  log.image(301, folder.file("x.png"));
  const std::vector<std::string> events = events_of(folder.file(event_file_name));
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(field(events[0], 3), "brain.Event:2");
  const std::string text = field(field(events[1], 5), 1);
  EXPECT_EQ(field(text, 1), "configuration/text_summary");
  EXPECT_NE(field(field(text, 8), 8).find("lr: 1.0e-3"), std::string::npos);
  EXPECT_EQ(field(field(field(text, 9), 1), 1), "text");
  const std::string session = field(field(field(field(field(field(events[2], 5), 1), 9), 1), 2), 3);
  std::map<std::string, std::string> hparams;
  for (const auto& [number, entry] : fields(session))
    if (number == 1) hparams[field(entry, 1)] = fields(field(entry, 2)).begin()->second;
  EXPECT_EQ(hparams, (std::map<std::string, std::string>{
                         {"train.steps", "10.000000"}, {"train.optimizer.lr", "0.001000"}, {"train.data", "shapes"}, {"model.flag", "1"}}));
  EXPECT_EQ(field(events[3], 2), "300");
  std::map<std::string, std::string> scalars;
  for (const auto& [number, value] : fields(field(events[3], 5))) scalars[field(value, 1)] = field(value, 2);
  EXPECT_EQ(scalars, (std::map<std::string, std::string>{{"loss", "0.250000"}, {"lr", "0.001000"}}));
  const std::string image = field(field(field(events[4], 5), 1), 4);
  EXPECT_EQ(field(image, 1), "2");
  EXPECT_EQ(field(image, 2), "3");
  EXPECT_EQ(field(image, 4), read_text(folder.file("x.png")));
}

TEST(TensorBoard, AResumedTrainingDropsLaterAndDamagedEvents) {
  const TempFolder folder;
  {
    TensorBoardLog log(folder.path(), configuration, 0);
    for (const int64_t step : {10, 20, 30}) log.scalars(step, {{"loss", double(step)}});
  }
  std::ofstream(folder.file(event_file_name), std::ios::binary | std::ios::app) << "half a record";
  TensorBoardLog log(folder.path(), configuration, 20);
  log.scalars(25, {{"loss", 1}});
  std::vector<std::string> steps;
  for (const std::string& event : events_of(folder.file(event_file_name))) steps.push_back(field(event, 2));
  EXPECT_EQ(steps, (std::vector<std::string>{"0", "0", "0", "10", "20", "25"}));
}

TEST(TensorBoard, ProtocDecodesTheEvents) {
  if (run({"sh", "-c", "command -v protoc || exit 1"}).code != 0) GTEST_SKIP() << "protoc is not installed";
  const TempFolder folder;
  TensorBoardLog(folder.path(), configuration, 0).scalars(7, {{"loss", 0.5}});
  const std::vector<std::string> events = events_of(folder.file(event_file_name));
  folder.file("event", events.back());
  const Finished decoded = run({"sh", "-c", "protoc --decode_raw < event"}, {folder.path()});
  EXPECT_EQ(decoded.code, 0) << decoded.err;
  EXPECT_NE(decoded.out.find("2: 7\n5 {\n  1 {\n    1: \"loss\"\n    2: 0x3f000000\n"), std::string::npos) << decoded.out;
}

}  // namespace
}  // namespace brume::test
