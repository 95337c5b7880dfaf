// brume new KIND NAME: a complete out-of-tree plugin that builds and runs as it is.
#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>

#include "brume/config/suggest.h"
#include "program/embedded.h"
#include "program/program.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

/// What the test configuration of a diffusion model has for a kind: something built in, and the new plugin in its place.
struct Part {
  std::string_view kind, usual, fresh;
};
constexpr Part parts[] = {
    {"autoencoder", "identity", "@name@"},
    {"conditioner", "{type: class_label, classes: 5}", "{type: @name@, groups: [0, 0, 1, 1, 1]}"},
    {"dataset", "shapes", "{type: @name@, orientations: 5}"},
    {"guidance", "{type: cfg, scale: 2}", "{type: @name@, scale: 2, sigma_lo: 0.1, sigma_hi: 20}"},
    {"lr_schedule", "constant", "{type: @name@, end: 0.1}"},
    {"network", "{type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, noise_embedding: @noise_embedding@}",
     "{type: @name@, channels: 16, blocks: 2}"},
    {"noise_embedding", "sinusoidal", "{type: @name@, period: 60}"},
    {"noise_schedule", "cosine", "{type: @name@, shift: 0.25}"},
    {"objective", "{type: simple, weighting: @weighting@, time: @time_sampler@}", "{type: @name@, mean: -1.2, std: 1.2}"},
    {"optimizer", "{type: adamw, decay: @lr_schedule@}", "{type: @name@, lr: 1.0e-4}"},
    {"parameterization", "v", "@name@"},
    {"sampler", "ddim", "{type: @name@, churn: 0}"},
    {"spacing", "trailing", "@name@"},
    {"time_sampler", "uniform", "{type: @name@, power: 2}"},
    {"weighting", "none", "{type: @name@, gamma: 4}"},
};

/// What a plugin cannot be called: its library is a CMake target of that name.
constexpr std::string_view cmake_words[] = {"all", "brume", "c10", "clean", "help", "install", "package", "test", "torch"};

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size()) text.replace(at, what.size(), by);
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

bool contains_word(const std::string& text, const std::string& word) {
  for (size_t at = 0; (at = text.find(word, at)) != std::string::npos; at += word.size()) {
    const size_t end = at + word.size();
    if ((at == 0 || !is_word(text[at - 1])) && (end == text.size() || !is_word(text[end]))) return true;
  }
  return false;
}

/// Returns MySampler of my_sampler, or MySamplerPlugin if the name has another meaning in the source.
std::string class_name(const std::string& name, const std::string& source) {
  std::string text;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '_') continue;
    const bool first = i == 0 || name[i - 1] == '_';
    text += first ? char(std::toupper(static_cast<unsigned char>(name[i]))) : name[i];
  }
  while (contains_word(source, text)) text += "Plugin";
  return text;
}

/// Returns "my_sampler" of "My-Sampler".
std::string as_name(const std::string& text) {
  std::string name;
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (std::isupper(c) && i > 0 && std::islower(static_cast<unsigned char>(text[i - 1]))) name += '_';
    name += is_word(text[i]) ? char(std::tolower(c)) : '_';
  }
  return name;
}

bool is_name(const std::string& text) {
  const auto fits = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  return !text.empty() && text[0] >= 'a' && text[0] <= 'z' && text.size() < 64 && std::all_of(text.begin(), text.end(), fits);
}

void check_name(const Registry& registry, const std::string& kind, const std::string& name) {
  if (!is_name(name)) {
    const std::string near = as_name(name);
    throw ConfigError(fmt::format("'{}' cannot be the name of a plugin: lower-case letters, digits and '_', beginning with a letter{}",
                                  name, is_name(near) ? fmt::format("; did you mean '{}'?", near) : ""));
  }
  const std::vector<std::string> taken = registry.names(kind);
  if (std::find(taken.begin(), taken.end(), name) != taken.end())
    throw ConfigError(fmt::format("there is a {} '{}' already ({}); choose another name", kind, name, registry.entry(kind, name).origin));
  if (std::find(std::begin(cmake_words), std::end(cmake_words), name) != std::end(cmake_words))
    throw ConfigError(fmt::format("'{}' cannot be the name of a plugin: it means something to CMake; choose another name", name));
}

/// Returns the prefix that brume is installed in, as far as this program knows: the folder above its own.
std::string prefix() {
  std::error_code error;
  const fs::path root = fs::read_symlink("/proc/self/exe", error).parent_path().parent_path();
  for (const char* lib : {"lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"})
    if (!error && fs::exists(root / lib / "cmake/brume/brumeConfig.cmake")) return root.string();
  return "/prefix/of/brume";
}

/// Returns contents by the names of files.
std::map<std::string, std::string> project(const std::string& kind, const std::string& name) {
  const std::string& source = templates().find(kind + ".cpp")->second;
  std::map<std::string, std::string> files{{name + ".cpp", source}};
  for (const char* file : {"CMakeLists.txt", "README.md", "test.yaml"}) files[file] = templates().find(file)->second;
  if (const auto own = templates().find(kind + ".yaml"); own != templates().end()) files["test.yaml"] = own->second;
  for (auto& [file, text] : files) {
    for (int nested = 0; nested < 2; ++nested)  // a network names a noise embedding, an objective a weighting and a time sampler
      for (const Part& part : parts) replace_all(text, fmt::format("@{}@", part.kind), part.kind == kind ? part.fresh : part.usual);
    replace_all(text, "@kind@", kind);
    replace_all(text, "@prefix@", prefix());
    replace_all(text, "@name@", name);
    replace_all(text, "@Class@", class_name(name, source));
  }
  return files;
}

void write(const fs::path& file, const std::string& text) {
  std::ofstream out(file, std::ios::binary);
  out << text;
  if (!out.flush()) throw ConfigError(fmt::format("{}: cannot be written", file.string()));
}

/// Writes the files to a folder next to the target and renames it at the end: all of them, or none.
void write_folder(const fs::path& folder, const std::map<std::string, std::string>& files) {
  std::error_code error;
  const fs::path parent = fs::absolute(folder).lexically_normal().parent_path();
  fs::create_directories(parent, error);
  std::string draft = (parent / ".brume_new_XXXXXX").string();
  if (error || !mkdtemp(draft.data())) throw ConfigError(fmt::format("{}: cannot be made", folder.string()));
  try {
    for (const auto& [file, text] : files) write(fs::path(draft) / file, text);
    fs::permissions(draft, fs::perms(0755));
    fs::rename(draft, fs::absolute(folder), error);
    if (error) throw ConfigError(fmt::format("{}: cannot be made: {}", folder.string(), error.message()));
  } catch (...) {
    fs::remove_all(draft, error);
    throw;
  }
}

void make_project(const Registry& registry, const std::string& given_kind, const std::string& name, fs::path folder) {
  const std::string kind = registry.current_kind(given_kind);
  std::vector<std::string> kinds = registry.kinds();
  std::erase_if(kinds, [](const std::string& k) { return !templates().contains(k + ".cpp"); });
  if (kind == "adapter" || kind == "control")
    throw ConfigError(fmt::format("plugins of the kind '{}' are brume's own: the files of other programs know no others", kind));
  if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end())
    throw ConfigError(fmt::format("unknown kind '{}'{}", kind, hint(kind, kinds)));
  check_name(registry, kind, name);
  if (folder.empty()) folder = name;
  if (!folder.has_filename()) folder = folder.parent_path();  // "here/"
  if (fs::exists(folder) && !fs::is_directory(folder)) throw ConfigError(fmt::format("{}: there is a file of that name", folder.string()));
  if (fs::exists(folder) && !fs::is_empty(folder))
    throw ConfigError(fmt::format("{}: is not empty; name another folder with -o", folder.string()));
  write_folder(folder, project(kind, name));
  fmt::print(
      "{0}: {1}.cpp, CMakeLists.txt, test.yaml, README.md\n\n"
      "  cmake -G Ninja -S {0} -B {0}/build -DCMAKE_PREFIX_PATH={2} && cmake --build {0}/build\n"
      "  brume train {0}/test.yaml --plugin {0}/build/lib{1}.so --out {0}/run\n",
      folder.string(), name, prefix());
}

}  // namespace

void add_new(Command app, Program& program, int&) {
  const Command command = app.add_subcommand("new", "writes a plugin to start from: source, CMake project, test configuration");
  struct Arguments {
    std::string kind, name, folder;
  };
  auto args = std::make_shared<Arguments>();
  command.add_option("kind", args->kind, "sampler, spacing, network, …").required().type_name("KIND");
  command.add_option("name", args->name, "what configurations will call it").required().type_name("NAME");
  command.add_option("-o,--out", args->folder, "the folder to make; NAME if not given").type_name("DIR");
  command.callback([&program, args] { make_project(program.registry, args->kind, args->name, args->folder); });
}

}  // namespace brume::tools
