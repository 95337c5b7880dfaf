#include "brume/text/sentencepiece.h"
#include "brume/config/number.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <new>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/utf8.h"
#include "brume/text/sentencepiece_shim.h"

namespace brume::text {
namespace {

struct Loaded {
  const BrumeSentencePiece* functions = nullptr;
  std::string missing;
};

/// Returns the path in the folder of this library, wherever it is installed.
std::filesystem::path shim_path() {
  Dl_info self = {};
  const char* const name = "libbrume_sentencepiece.so";
  if (!dladdr(reinterpret_cast<const void*>(&sentencepiece_missing), &self) || !self.dli_fname) return name;
  return std::filesystem::absolute(self.dli_fname).parent_path() / name;
}

Loaded load() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return {nullptr, "sentencepiece cannot be loaded in a build with the address or thread sanitizer, which refuse RTLD_DEEPBIND"};
#else
  const std::filesystem::path path = shim_path();
  if (!std::filesystem::exists(path))
    return {nullptr, fmt::format("{} is missing, and text needs it: brume was built without sentencepiece (Debian: "
                                 "libsentencepiece-dev; tools/scripts/setup.sh installs it)",
                                 path.string())};
  // Its own libraries first (DEEPBIND) and nobody else's business (LOCAL): their protobuf is not LibTorch's.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (!library) return {nullptr, fmt::format("{}: cannot be loaded: {}", path.string(), dlerror())};
  const auto entry = reinterpret_cast<BrumeSentencePieceEntry>(dlsym(library, "brume_sentencepiece"));
  if (!entry) return {nullptr, fmt::format("{}: is not brume's: {}", path.string(), dlerror())};
  return {entry(), {}};
#endif
}

const Loaded& loaded() {
  static const Loaded once = load();
  return once;
}

const BrumeSentencePiece& shim() {
  if (!loaded().functions) throw ConfigError(loaded().missing);
  return *loaded().functions;
}

/// What the shim puts out, and why it failed.
struct Answer {
  std::string bytes, error;
  std::vector<int64_t> ids;
  static void put(void* to, const char* bytes, size_t size) { static_cast<Answer*>(to)->bytes.append(bytes, size); }
  static void fail(void* to, const char* bytes, size_t size) { static_cast<Answer*>(to)->error.append(bytes, size); }
  static void id(void* to, int value) { static_cast<Answer*>(to)->ids.push_back(value); }
};

/// The captions one by one, without the line ends and tabs that sentencepiece takes for its own.
struct Feed {
  const std::vector<std::string>& captions;
  size_t at = 0;
  std::string caption{};
  static const char* next(void* from, size_t* size) {
    Feed& feed = *static_cast<Feed*>(from);
    if (feed.at == feed.captions.size()) return nullptr;
    feed.caption = feed.captions[feed.at++];
    std::replace_if(
        feed.caption.begin(), feed.caption.end(), [](char c) { return c == '\t' || c == '\n' || c == '\r' || c == '\0'; }, ' ');
    *size = feed.caption.size();
    return feed.caption.data();
  }
};

/// Returns false if it failed; throws std::bad_alloc if memory ran out.
bool done(BrumeSentencePieceResult result) {
  if (result == brume_out_of_memory) throw std::bad_alloc();
  return result == brume_done;
}

/// Throws std::bad_alloc without room for the suffix array of the captions: sentencepiece would end the process.
void check_room_for_training(const std::vector<std::string>& captions) {
  constexpr size_t alphabet = size_t{8} << 20,
                   per_byte = 40;  // two numbers per character of Unicode; arrays of characters and their places
  size_t bytes = 0;
  for (const std::string& caption : captions) bytes += caption.size();
  ::operator delete(::operator new(alphabet + per_byte * bytes));
}

/// Returns the number that follows `words` in a message.
std::optional<int64_t> number_after(std::string_view message, std::string_view words) {
  const size_t found = message.find(words);
  if (found == std::string_view::npos) return {};
  message.remove_prefix(found + words.size());
  return take_number<int64_t>(message);
}

/// Returns the message about a size, which sentencepiece words by its own options.
std::string size_error(int64_t size, const std::string& error) {
  if (const auto most = number_after(error, "value <= "))
    return fmt::format("{} are more than these captions give; at most {} are possible", counted(size, "piece"), *most);
  if (const auto chars = number_after(error, " vs "); chars && error.find("required_chars") != std::string::npos)
    return fmt::format("{} are too few for these captions; their characters alone need more than {}", counted(size, "piece"), *chars);
  return "sentencepiece could not be trained: " + error;
}

}  // namespace

const std::string& sentencepiece_missing() { return loaded().missing; }

std::string SentencePiece::train(const std::vector<std::string>& captions, const Training& training) {
  for (size_t i = 0; i < captions.size(); ++i)
    if (const auto at = invalid_utf8(captions[i])) throw ConfigError(fmt::format("caption {} is not UTF-8 at byte {}", i + 1, *at));
  const auto blank = [](const std::string& c) { return c.find_first_not_of(" \t\r\n") == std::string::npos; };
  if (std::all_of(captions.begin(), captions.end(), blank)) throw ConfigError("there are no captions to train a tokenizer on");
  if (training.size < 8 || training.size > 1000000)
    throw ConfigError(fmt::format("{}: a tokenizer has between 8 and 1000000", counted(training.size, "piece")));
  check_room_for_training(captions);
  Feed feed{captions};
  const BrumeSentencePieceTraining asked{int(training.size), training.fold_case ? 1 : 0, training.merges ? 1 : 0, Feed::next, &feed};
  Answer answer;
  if (!done(shim().train(&asked, &answer, Answer::put, Answer::fail))) throw ConfigError(size_error(training.size, answer.error));
  return answer.bytes;
}

SentencePiece::SentencePiece(std::string_view model, const std::string& name) {
  Answer answer;
  if (model.empty() || !done(shim().open(model.data(), model.size(), &model_, &answer, Answer::fail)))
    throw ConfigError(fmt::format("{}: is no sentencepiece model{}", name, model.empty() ? ": it is empty" : ""));
  shim().special(model_, special_);
}

SentencePiece::~SentencePiece() {
  if (model_) shim().close(model_);
}

std::vector<int64_t> SentencePiece::encode(std::string_view text) const {
  if (const auto at = invalid_utf8(text)) throw ConfigError(fmt::format("a prompt is not UTF-8 at byte {}: {}", *at, in_quotes(text)));
  Answer answer;
  if (!done(shim().encode(model_, text.data(), text.size(), &answer, Answer::id, Answer::fail)))
    throw std::logic_error("sentencepiece: " + answer.error);
  return answer.ids;
}

std::string SentencePiece::decode(const std::vector<int64_t>& ids) const {
  std::vector<int> narrow;
  for (const int64_t id : ids) {
    if (id < 0 || id >= size())
      throw ConfigError(fmt::format("piece {} is out of range: the tokenizer has {}, 0 to {}", id, size(), size() - 1));
    narrow.push_back(int(id));
  }
  Answer answer;
  if (!done(shim().decode(model_, narrow.data(), narrow.size(), &answer, Answer::put, Answer::fail)))
    throw std::logic_error("sentencepiece: " + answer.error);
  return answer.bytes;
}

std::string SentencePiece::piece(int64_t id) const {
  if (id < 0 || id >= size())
    throw ConfigError(fmt::format("piece {} is out of range: the tokenizer has {}, 0 to {}", id, size(), size() - 1));
  Answer answer;
  shim().piece(model_, int(id), &answer, Answer::put);
  return answer.bytes;
}

int64_t SentencePiece::size() const { return shim().size(model_); }

}  // namespace brume::text
