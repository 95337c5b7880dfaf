// brume list [KIND], brume describe KIND NAME, brume describe SECTION, brume schema.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "brume/config/describe.h"
#include "brume/config/suggest.h"
#include "brume/interop/import/import.h"
#include "brume/train/options.h"
#include "commands/cli_reference.h"
#include "program/program.h"

namespace brume::tools {
namespace {

/// Every key that a configuration can have.
void declare_configuration(Fields& f) {
  Config config;
  config.declare(f);
}

/// Throws ConfigError if the section is unknown: a kind of plugins needs a name as well.
void print_section(const Registry& registry, const std::string& name, bool markdown) {
  std::vector<std::string> known = registry.kinds();
  bool found = false;
  for (const Section& s : sections(declare_configuration)) {
    known.push_back(s.path);
    found = found || s.path == name || s.path.ends_with("." + name);
  }
  if (!found && !registry.names(name).empty())
    throw ConfigError(
        fmt::format("describe needs the name of a {} as well, like: brume describe {} {}", name, name, registry.names(name).front()));
  if (!found) throw ConfigError(fmt::format("unknown kind or section '{}'{}", name, hint(name, known)));
  const Section section = section_named(declare_configuration, name);
  fmt::print("{}", markdown ? describe_markdown(declare_configuration, section) : describe(declare_configuration, section));
}

/// Prints the table of README.md: the plugins of every kind, and the models of other programs that are opened.
void print_table(const Registry& registry) {
  fmt::print("| kind | plugins |\n|---|---|\n");
  for (const std::string& kind : registry.kinds()) fmt::print("| {} | `{}` |\n", kind, fmt::join(registry.names(kind), "` `"));
  std::vector<std::string_view> opened;
  for (const Family& family : families()) opened.push_back(family.name);
  fmt::print("| models of other programs | {} |\n", fmt::join(opened, "; "));
}

}  // namespace

void add_list(Command app, Program& program, int&) {
  const Command command = app.add_subcommand("list", "the plugins of a kind, or of every kind");
  auto kind = std::make_shared<std::string>();
  command.add_option("kind", *kind, "sampler, spacing, network, …");
  auto markdown = std::make_shared<bool>(false);
  command.add_flag("--markdown", *markdown, "the table of every kind in Markdown").excludes("kind");
  command.callback([&program, kind, markdown] {
    if (*markdown) return print_table(program.registry);
    const std::vector<std::string> kinds = program.registry.kinds();
    if (!kind->empty() && program.registry.names(*kind).empty())
      throw ConfigError(fmt::format("unknown kind '{}'{}", *kind, hint(*kind, kinds)));
    for (const std::string& k : kind->empty() ? kinds : std::vector<std::string>{program.registry.current_kind(*kind)}) {
      fmt::print("{}{}\n", k == kinds.front() || !kind->empty() ? "" : "\n", k);
      for (const std::string& name : program.registry.names(k)) {
        const Entry& e = program.registry.entry(k, name);
        const std::string preset = e.preset_of.empty() ? "" : fmt::format("  (preset of {})", e.preset_of);
        fmt::print("  {:<18} {}{}{}\n", name, e.doc, preset, e.origin == "built-in" ? "" : fmt::format("  [{}]", e.origin));
      }
    }
  });
}

void add_describe(Command app, Program& program, int&) {
  const Command command = app.add_subcommand("describe", "the parameters of a plugin, or the keys of a section of a configuration");
  struct Arguments {
    std::string kind, name;
    bool markdown = false, cli = false;
  };
  auto args = std::make_shared<Arguments>();
  command.add_option("kind", args->kind, "sampler, spacing, network, …; or a section: model, train, sample, compute, preview, …");
  command.add_option("name", args->name, "of a plugin: ddim, …");
  command.add_flag("--markdown", args->markdown, "as Markdown; without a kind, the whole reference");
  command.add_flag("--cli", args->cli, "every command of the program with its options, in Markdown");
  command.callback([app, &program, args] {
    if (args->cli) return fmt::print("{}", cli_markdown(app));
    const Registry& registry = program.registry;
    if (args->markdown && args->kind.empty()) return fmt::print("{}", reference_markdown(registry, declare_configuration));
    if (args->kind.empty())
      throw ConfigError("describe needs a kind and a name, like: brume describe sampler ddim; or a section, like: brume describe sample");
    if (args->name.empty()) return print_section(registry, args->kind, args->markdown);
    fmt::print("{}", args->markdown ? describe_markdown(registry, args->kind, args->name) : describe(registry, args->kind, args->name));
  });
}

void add_schema(Command app, Program& program, int&) {
  app.add_subcommand("schema", "JSON Schema of a configuration, for editors").callback([&program] {
    fmt::print("{}", json_schema(program.registry, declare_configuration));
  });
}

}  // namespace brume::tools
