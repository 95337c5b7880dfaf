// Reads the record of a plugin library from the file, section by section, as the System V ABI lays out ELF: loading a library
// runs its constructors, and one built for another LibTorch could not even be loaded to be asked.
#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "brume/config/plugin_loader.h"

namespace brume {
namespace {

/// Reads plain data at an offset of a file; false if the file ends before.
class Elf {
 public:
  explicit Elf(const std::filesystem::path& file) : in_(file, std::ios::binary) {}

  template <class T>
  bool read(uint64_t offset, T& into, size_t bytes = sizeof(T)) {
    in_.clear();
    return in_.seekg(std::streamoff(offset)) && in_.read(reinterpret_cast<char*>(&into), std::streamsize(bytes));
  }
  bool is_library(Elf64_Ehdr& header) {
    return read(0, header) && std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_ident[EI_CLASS] == ELFCLASS64 &&
           header.e_type == ET_DYN && header.e_shentsize == sizeof(Elf64_Shdr);
  }
  bool section(const Elf64_Ehdr& header, uint64_t index, Elf64_Shdr& into) {
    return read(header.e_shoff + index * sizeof(Elf64_Shdr), into);
  }

 private:
  std::ifstream in_;
};

}  // namespace

std::optional<PluginAbi> read_plugin_abi(const std::filesystem::path& library) {
  static constexpr char wanted[] = ".brume_abi";
  Elf elf(library);
  Elf64_Ehdr header{};
  Elf64_Shdr names{}, section{};
  if (!elf.is_library(header)) throw ConfigError(fmt::format("{}: not a shared library", library.string()));
  if (header.e_shoff == 0 || !elf.section(header, header.e_shstrndx, names)) return std::nullopt;
  for (uint64_t i = 0; i < header.e_shnum && elf.section(header, i, section); ++i) {
    char name[sizeof(wanted)] = {};
    if (!elf.read(names.sh_offset + section.sh_name, name) || std::memcmp(name, wanted, sizeof(wanted)) != 0) continue;
    PluginAbi abi{};
    if (!elf.read(section.sh_offset, abi, std::min<uint64_t>(section.sh_size, sizeof(abi)))) return std::nullopt;
    abi.torch[sizeof(abi.torch) - 1] = abi.compiler[sizeof(abi.compiler) - 1] = abi.name[sizeof(abi.name) - 1] = '\0';
    return abi;
  }
  return std::nullopt;
}

}  // namespace brume
