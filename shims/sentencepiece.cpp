// libbrume_sentencepiece.so: the only thing that links libsentencepiece (framework/text/sentencepiece_shim.h says why). Loaded when
// first used, by framework/text/sentencepiece.cpp.
#include "brume/text/sentencepiece_shim.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <unordered_map>
#include <vector>

namespace {

using sentencepiece::SentencePieceProcessor;

const SentencePieceProcessor& of(const void* model) { return *static_cast<const SentencePieceProcessor*>(model); }

void say(void* to, BrumePut put, const std::string& text) { put(to, text.data(), text.size()); }

/// Does what `run` does, with exceptions and bad states written to `error`. Memory, or room for a thread, may run out.
template <class F>
BrumeSentencePieceResult guarded(void* to, BrumePut error, const F& run) {
  try {
    const sentencepiece::util::Status status = run();
    if (status.ok()) return brume_done;
    say(to, error, status.error_message());
  } catch (const std::bad_alloc&) {
    return brume_out_of_memory;
  } catch (const std::system_error& e) {
    if (e.code() == std::errc::resource_unavailable_try_again || e.code() == std::errc::not_enough_memory) return brume_out_of_memory;
    say(to, error, e.what());
  } catch (const std::exception& e) {
    say(to, error, e.what());
  } catch (...) {
    say(to, error, "an unknown exception");
  }
  return brume_failed;
}

bool read_varint(const char*& at, const char* end, uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && at != end; shift += 7) {
    const auto byte = static_cast<unsigned char>(*at++);
    value |= uint64_t(byte & 127) << shift;
    if (byte < 128) return true;
  }
  return false;
}

/// Returns true if each field of a message of protobuf lies within its bytes. Protobuf itself reserves what a field claims to hold, up to
/// 50 MB, before it finds that the bytes are not there.
bool holds_its_fields(const char* at, size_t size) {
  const char* const end = at + size;
  for (uint64_t tag = 0, length = 0; at != end; at += length) {
    if (!read_varint(at, end, tag)) return false;
    const auto type = int(tag & 7);
    if ((type == 0 || type == 2) && !read_varint(at, end, length)) return false;
    if (type != 2) length = type == 1 ? 8 : type == 5 ? 4 : 0;
    if (length > uint64_t(end - at)) return false;
  }
  return true;
}

BrumeSentencePieceResult open_model(const char* bytes, size_t size, void** result, void* to, BrumePut error) {
  *result = nullptr;
  if (!holds_its_fields(bytes, size)) return say(to, error, "it ends within a field"), brume_failed;
  return guarded(to, error, [&] {
    auto model = std::make_unique<SentencePieceProcessor>();
    auto status = model->LoadFromSerializedProto({bytes, size});
    if (status.ok()) *result = model.release();
    return status;
  });
}

void close_model(void* model) { delete static_cast<SentencePieceProcessor*>(model); }

int size_of(const void* model) { return of(model).GetPieceSize(); }

void special(const void* model, int ids[4]) {
  const SentencePieceProcessor& m = of(model);
  const int all[4] = {m.unk_id(), m.bos_id(), m.eos_id(), m.pad_id()};
  for (int i = 0; i < 4; ++i) ids[i] = all[i];
}

BrumeSentencePieceResult encode(const void* model, const char* text, size_t size, void* to, void (*put)(void*, int), BrumePut error) {
  return guarded(to, error, [&] {
    std::vector<int> ids;
    const auto status = of(model).Encode({text, size}, &ids);
    for (const int id : ids) put(to, id);
    return status;
  });
}

BrumeSentencePieceResult decode(const void* model, const int* ids, size_t count, void* to, BrumePut text, BrumePut error) {
  return guarded(to, error, [&] {
    std::string out;
    const auto status = of(model).Decode(std::vector<int>(ids, ids + count), &out);
    if (status.ok()) say(to, text, out);
    return status;
  });
}

void piece(const void* model, int id, void* to, BrumePut text) { say(to, text, of(model).IdToPiece(id)); }

class Captions final : public sentencepiece::SentenceIterator {
 public:
  explicit Captions(const BrumeSentencePieceTraining& training) : training_(training) { Next(); }
  bool done() const override { return done_; }
  void Next() override {
    size_t size = 0;
    const char* text = training_.next(training_.from, &size);
    done_ = text == nullptr;
    if (!done_) value_.assign(text, size);
  }
  const std::string& value() const override { return value_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const BrumeSentencePieceTraining& training_;
  std::string value_;
  bool done_ = false;
};

BrumeSentencePieceResult train(const BrumeSentencePieceTraining* training, void* to, BrumePut model, BrumePut error) {
  return guarded(to, error, [&] {
    const std::unordered_map<std::string, std::string> options = {
        {"vocab_size", std::to_string(training->size)},
        {"model_type", training->merges ? "bpe" : "unigram"},
        {"character_coverage", "1.0"},
        {"normalization_rule_name", training->fold_case ? "nmt_nfkc_cf" : "nmt_nfkc"},
        {"pad_id", "0"},
        {"unk_id", "1"},
        {"bos_id", "2"},
        {"eos_id", "3"},
        {"max_sentence_length", "1000000"},
        {"num_threads", "4"},  // fixed: the sums of its expectations are cut by threads
        {"minloglevel", "3"},
    };
    Captions captions(*training);
    std::string bytes;
    const auto status = sentencepiece::SentencePieceTrainer::Train(options, &captions, &bytes);
    if (status.ok()) say(to, model, bytes);
    return status;
  });
}

constexpr BrumeSentencePiece functions = {open_model, close_model, size_of, special, encode, decode, piece, train};

}  // namespace

extern "C" __attribute__((visibility("default"))) const BrumeSentencePiece* brume_sentencepiece() { return &functions; }
