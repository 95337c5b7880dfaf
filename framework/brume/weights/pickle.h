#pragma once
// Reads Python pickles (protocols 0 to 5: https://docs.python.org/3/library/pickletools.html) without executing anything: a
// stack machine over the opcodes that state dicts use, which can only build plain data and what its vocabulary allows.
#include <cstddef>
#include <string>
#include <string_view>

#include "brume/weights/pickle_value.h"

namespace brume {

/// The names a pickle may refer to, and what calling them means. Everything else is refused by name.
class PickleVocabulary {
 public:
  virtual ~PickleVocabulary() = default;
  /// Returns the value of a global such as "torch.float32" or "collections.OrderedDict", or throws through `refuse`: a PickleName is a name
  /// that the pickle may then call.
  virtual PickleValue global(const std::string& name) = 0;
  virtual PickleValue call(const std::string& name, const Sequence& arguments) = 0;
  virtual PickleValue persistent(const PickleValue& id) = 0;  ///< an object kept outside the pickle: a storage
  /// Returns whether the attributes of an object are kept: those of a dict as entries of the object, others under the key "__state__".
  virtual bool keeps_attributes() const { return false; }
};

/// The pickle of thousands of tensors has under one MiB; what it builds may take some fifty times its size.
constexpr size_t max_pickle_bytes = size_t{64} << 20;

/// Returns the value pickled in `bytes`, acyclic and of bounded depth and size. `file` names the source in errors (ConfigError); a pickle
/// that holds the numbers of its tensors may have more than `limit` bytes.
PickleValue read_pickle(std::string_view bytes, PickleVocabulary& vocabulary, const std::string& file, size_t limit = max_pickle_bytes);
/// Returns the same of a pickle that other bytes follow, which is taken off the front of `bytes`.
PickleValue take_pickle(std::string_view& bytes, PickleVocabulary& vocabulary, const std::string& file);

}  // namespace brume
