#include "brume/weights/pickle.h"
#include "brume/config/number.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "brume/config/counted.h"
#include "brume/files/refuse.h"
#include "brume/weights/pickle_graph.h"
#include "brume/weights/pickle_opcodes.h"

namespace brume {
namespace {

using namespace opcodes;

constexpr size_t max_objects = size_t{1} << 22;  // values and marks on the stack, memo entries, containers: each
constexpr size_t max_key = 4096;
constexpr size_t max_integer_bytes = 32;

/// One run over one pickle. Each family of opcodes is a function that says whether the opcode was its own.
class Machine final {
 public:
  Machine(std::string_view bytes, PickleVocabulary& vocabulary, const std::string& file)
      : bytes_(bytes), vocabulary_(vocabulary), file_(file) {}

  size_t position() const { return position_; }

  PickleValue run() {
    for (;;) {
      opcode_at_ = position_;
      const auto opcode = number<uint8_t>();
      if (opcode == STOP) return finish();
      if (!constant(opcode) && !text(opcode) && !container(opcode) && !memo(opcode) && !object(opcode) && !control(opcode)) {
        damaged(fmt::format("the opcode 0x{:02x}, which no plain data needs", opcode));
      }
      if (std::max({stack_.size(), marks_.size(), memo_.size(), graph_.size()}) > max_objects) {
        damaged(fmt::format("more than {}", counted(max_objects, "object")));
      }
    }
  }

 private:
  [[noreturn]] void damaged(const std::string& reason) const {
    refuse(file_, fmt::format("its pickle cannot be read: at byte {}: {}", opcode_at_, reason));
  }

  // --- reading bytes

  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - position_) damaged(fmt::format("{} bytes are needed, {} are left", count, bytes_.size() - position_));
    const auto taken = bytes_.substr(position_, count);
    position_ += count;
    return taken;
  }

  template <class T>
  T number() {  // little endian, as this machine (safetensors.cpp asserts it)
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string_view line() {
    const auto end = bytes_.find('\n', position_);
    if (end == std::string_view::npos) damaged("a line without an end");
    const auto taken = take(end - position_);
    position_ += 1;
    return taken;
  }

  template <class T>
  T parsed(std::string_view digits) {
    const auto value = parse_number<T>(digits);
    if (!value) damaged(fmt::format("'{}' is no number", shortened(digits, 40)));
    return *value;
  }

  // --- the stack

  bool push(PickleValue value) {
    stack_.push_back(std::move(value));
    return true;
  }

  bool push_new(PickleValue value) {
    graph_.own(value);
    return push(std::move(value));
  }

  PickleValue pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) damaged("the stack is empty");
    PickleValue value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }

  const PickleValue& top() const {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) damaged("the stack is empty");
    return stack_.back();
  }

  /// Returns the values above the last mark, which goes too.
  Sequence pop_mark() {
    if (marks_.empty()) damaged("no mark on the stack");
    const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    Sequence values(std::make_move_iterator(first), std::make_move_iterator(stack_.end()));
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return values;
  }

  Sequence pop_count(size_t count) {
    Sequence values(count);
    for (size_t i = count; i-- > 0;) values[i] = pop();
    return values;
  }

  // --- opcodes

  bool constant(uint8_t opcode) {
    switch (opcode) {
      case NONE: return push(PickleValue());
      case NEWTRUE: return push(PickleValue(true));
      case NEWFALSE: return push(PickleValue(false));
      case BININT: return push(PickleValue(int64_t{number<int32_t>()}));
      case BININT1: return push(PickleValue(int64_t{number<uint8_t>()}));
      case BININT2: return push(PickleValue(int64_t{number<uint16_t>()}));
      case LONG1: return push(integer(take(number<uint8_t>())));
      case LONG4: return push(integer(take(number<uint32_t>())));
      case BINFLOAT: return push(PickleValue(std::bit_cast<double>(__builtin_bswap64(number<uint64_t>()))));
      case FLOAT: return push(PickleValue(parsed<double>(line())));
      case INT: {
        const auto digits = line();
        if (digits == "00" || digits == "01") return push(PickleValue(digits == "01"));  // how protocol 0 writes booleans
        return push(PickleValue(parsed<int64_t>(digits)));
      }
      case LONG: {
        auto digits = line();
        if (digits.ends_with('L')) digits.remove_suffix(1);
        return push(PickleValue(parsed<int64_t>(digits)));
      }
      default: return false;
    }
  }

  /// Reads two's complement, little endian, of any width.
  PickleValue integer(std::string_view bytes) {
    if (bytes.size() > max_integer_bytes) damaged(fmt::format("an integer of {} bytes", bytes.size()));
    const bool negative = !bytes.empty() && (bytes.back() & 0x80) != 0;
    while (bytes.size() > 8 && bytes.back() == (negative ? '\xff' : '\0')) {
      if (((bytes[bytes.size() - 2] & 0x80) != 0) != negative) break;  // this byte carries the sign
      bytes.remove_suffix(1);
    }
    if (bytes.size() > 8) {  // kept for a listing only: nothing here computes with it
      std::string hexadecimal = "0x";
      for (size_t i = bytes.size(); i-- > 0;) hexadecimal += fmt::format("{:02x}", static_cast<uint8_t>(bytes[i]));
      return PickleValue(PickleName(hexadecimal));
    }
    int64_t value = negative ? -1 : 0;
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return PickleValue(value);
  }

  bool text(uint8_t opcode) {
    switch (opcode) {
      case BINSTRING:
      case BINUNICODE: return push(PickleValue::text(take(number<uint32_t>())));
      case SHORT_BINSTRING:
      case SHORT_BINUNICODE: return push(PickleValue::text(take(number<uint8_t>())));
      case BINUNICODE8: return push(PickleValue::text(take(number<uint64_t>())));
      case BINBYTES: return push(PickleValue::bytes(take(number<uint32_t>())));
      case SHORT_BINBYTES: return push(PickleValue::bytes(take(number<uint8_t>())));
      case BINBYTES8:
      case BYTEARRAY8: return push(PickleValue::bytes(take(number<uint64_t>())));
      case UNICODE: return push(PickleValue::text(unescaped(line())));
      case STRING: {
        auto quoted = unescaped(line());
        if (quoted.size() < 2 || quoted.front() != quoted.back() || (quoted.front() != '\'' && quoted.front() != '"')) {
          damaged("text without quotes");
        }
        return push(PickleValue::text(quoted.substr(1, quoted.size() - 2)));
      }
      default: return false;
    }
  }

  /// Returns the text if nothing in it is escaped, which protocol 0 alone does; plain names need no escapes.
  std::string_view unescaped(std::string_view text) {
    for (const char c : text) {
      if (c == '\\' || static_cast<uint8_t>(c) >= 0x80) damaged("escaped text of protocol 0, which brume does not read");
    }
    return text;
  }

  bool container(uint8_t opcode) {
    switch (opcode) {
      case EMPTY_SET:  // a list, here: nobody asks what is in it
      case EMPTY_LIST: return push_new(PickleValue::list());
      case EMPTY_DICT: return push_new(PickleValue::dict());
      case EMPTY_TUPLE: return push_new(PickleValue::tuple());
      case TUPLE1: return push_new(PickleValue::tuple(pop_count(1)));
      case TUPLE2: return push_new(PickleValue::tuple(pop_count(2)));
      case TUPLE3: return push_new(PickleValue::tuple(pop_count(3)));
      case TUPLE: return push_new(PickleValue::tuple(pop_mark()));
      case FROZENSET:
      case LIST: return push_new(PickleValue::list(pop_mark()));
      case DICT: {
        auto items = pop_mark();
        push_new(PickleValue::dict());
        return set_items(std::move(items));
      }
      case APPEND: return append_items(pop_count(1));
      case ADDITEMS:
      case APPENDS: return append_items(pop_mark());
      case SETITEM: return set_items(pop_count(2));
      case SETITEMS: return set_items(pop_mark());
      default: return false;
    }
  }

  bool append_items(Sequence items) {
    const auto* list = std::get_if<PickleValue::PickleList>(&top().content());
    if (list == nullptr) damaged(fmt::format("appending to a {}", top().kind()));
    list->items->insert(list->items->end(), std::make_move_iterator(items.begin()), std::make_move_iterator(items.end()));
    return true;
  }

  bool set_items(Sequence items) {
    const auto* dict = std::get_if<std::shared_ptr<PickleDict>>(&top().content());
    if (dict == nullptr) damaged(fmt::format("setting an item of a {}", top().kind()));
    if (items.size() % 2 != 0) damaged("a dict key without a value");
    for (size_t i = 0; i < items.size(); i += 2) {
      const auto& key = items[i];
      if (key.as_list() != nullptr || key.as_dict() != nullptr || key.as_tensor() != nullptr) {
        damaged(fmt::format("a {} as the key of a dict", key.kind()));
      }
      if (key.as_text() != nullptr && key.as_text()->size() > max_key) damaged(fmt::format("a key of {} bytes", key.as_text()->size()));
      (*dict)->set(std::move(items[i]), std::move(items[i + 1]));
    }
    return true;
  }

  bool memo(uint8_t opcode) {
    switch (opcode) {
      case GET: return recall(parsed<uint32_t>(line()));
      case BINGET: return recall(number<uint8_t>());
      case LONG_BINGET: return recall(number<uint32_t>());
      case PUT: return memorize(parsed<uint32_t>(line()));
      case BINPUT: return memorize(number<uint8_t>());
      case LONG_BINPUT: return memorize(number<uint32_t>());
      case MEMOIZE: return memorize(static_cast<uint32_t>(memo_.size()));
      default: return false;
    }
  }

  bool memorize(uint32_t number) {
    memo_.insert_or_assign(number, top());
    return true;
  }

  bool recall(uint32_t number) {
    const auto found = memo_.find(number);
    if (found == memo_.end()) damaged(fmt::format("nothing was memorized as {}", number));
    return push(found->second);
  }

  bool object(uint8_t opcode) {
    switch (opcode) {
      case GLOBAL: {
        const auto module = line();
        return push_global(module, line());
      }
      case STACK_GLOBAL: {
        const auto names = pop_count(2);
        if (names[0].as_text() == nullptr || names[1].as_text() == nullptr) damaged("a global whose name is no text");
        return push_global(*names[0].as_text(), *names[1].as_text());
      }
      case REDUCE:
      case NEWOBJ: {
        const auto arguments = pop();
        const auto callee = pop();
        if (callee.as_name() == nullptr) damaged(fmt::format("a {} is called", callee.kind()));
        if (arguments.as_tuple() == nullptr) damaged(fmt::format("a call with a {} instead of arguments", arguments.kind()));
        return push_new(vocabulary_.call(callee.as_name()->text(), *arguments.as_tuple()));
      }
      case BUILD: {  // sets attributes; an OrderedDict has some (a state dict's _metadata), which are no entries of it
        const auto attributes = pop();
        if (top().as_dict() == nullptr && top().as_name() == nullptr) damaged(fmt::format("attributes for a {}", top().kind()));
        return vocabulary_.keeps_attributes() ? keep(attributes) : add_parameters(attributes);
      }
      case BINPERSID: return push_new(vocabulary_.persistent(pop()));
      default: return false;
    }
  }

  bool keep(const PickleValue& attributes) {
    const auto* dict = std::get_if<std::shared_ptr<PickleDict>>(&top().content());
    if (dict == nullptr || dict->get() == attributes.as_dict()) return true;
    Sequence items;
    if (const auto* entries = attributes.as_dict(); entries != nullptr)
      for (const auto& [key, value] : entries->entries()) items.insert(items.end(), {key, value});
    else
      items = {PickleValue::text("__state__"), attributes};
    copied_ += items.size();
    if (copied_ > bytes_.size()) damaged("attributes copied many times over");
    return set_items(std::move(items));
  }

  /// Sets the entries of an nn.ParameterDict, which are attributes of it: `_parameters`, and tensors that `_keys` lists.
  bool add_parameters(const PickleValue& attributes) {
    const auto* state = attributes.as_dict();
    const auto* dict = std::get_if<std::shared_ptr<PickleDict>>(&top().content());
    if (state == nullptr || dict == nullptr || dict->get() == state) return true;
    const auto entries_of = [state](std::string_view name) {
      const auto* value = state->find(name);
      return value == nullptr ? nullptr : value->as_dict();
    };
    Sequence items;
    if (const auto* parameters = entries_of("_parameters"); parameters != nullptr)
      for (const auto& [key, value] : parameters->entries()) items.insert(items.end(), {key, value});
    if (const auto* keys = entries_of("_keys"); keys != nullptr)
      for (const auto& [key, none] : keys->entries())
        if (const auto* value = key.as_text() == nullptr ? nullptr : state->find(*key.as_text()); value != nullptr && value->as_tensor())
          items.insert(items.end(), {key, *value});
    copied_ += items.size();
    if (copied_ > bytes_.size()) damaged("parameters copied many times over");
    return set_items(std::move(items));
  }

  bool push_global(std::string_view module, std::string_view name) {
    if (module.size() + name.size() > max_key) damaged("a global with a name that long");
    return push_new(vocabulary_.global(fmt::format("{}.{}", module, name)));
  }

  bool control(uint8_t opcode) {
    switch (opcode) {
      case PROTO: {
        const auto protocol = number<uint8_t>();
        if (protocol > 5) damaged(fmt::format("protocol {} (readable: 0 to 5)", protocol));
        return true;
      }
      case FRAME: number<uint64_t>(); return true;  // a hint for buffered readers
      case MARK: marks_.push_back(stack_.size()); return true;
      case POP:
        if (!marks_.empty() && marks_.back() == stack_.size()) {
          marks_.pop_back();
        } else {
          pop();
        }
        return true;
      case POP_MARK: pop_mark(); return true;
      case DUP: return push(PickleValue(top()));
      default: return false;
    }
  }

  PickleValue finish() {
    PickleValue root = pop();
    const auto wrong = graph_.accept(root);
    if (!wrong.empty()) damaged(wrong);
    return root;
  }

  std::string_view bytes_;
  PickleVocabulary& vocabulary_;
  const std::string& file_;
  size_t position_ = 0;
  size_t opcode_at_ = 0;
  PickleGraph graph_;  // before what refers to its containers
  std::vector<PickleValue> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, PickleValue> memo_;
  size_t copied_ = 0;  ///< keys and values, by add_parameters()
};

}  // namespace

PickleValue read_pickle(std::string_view bytes, PickleVocabulary& vocabulary, const std::string& file, size_t limit) {
  if (bytes.size() > limit) refuse(file, fmt::format("its pickle has {} bytes (at most {})", bytes.size(), limit));
  return Machine(bytes, vocabulary, file).run();
}

PickleValue take_pickle(std::string_view& bytes, PickleVocabulary& vocabulary, const std::string& file) {
  Machine machine(bytes.substr(0, max_pickle_bytes), vocabulary, file);
  PickleValue value = machine.run();
  bytes.remove_prefix(machine.position());
  return value;
}

}  // namespace brume
