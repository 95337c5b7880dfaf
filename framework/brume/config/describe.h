#pragma once
// The sections of a configuration, explained as plugins are (registry.h), from the declaration that reads them.
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/registry.h"

namespace brume {

/// A part of a configuration that is no plugin: "train", "train.preview".
struct Section {
  std::string path, doc;
};

/// Returns those of a configuration with this root, in the order of declaration.
std::vector<Section> sections(const Entry::Declare& root);
/// Returns the section of this path, or of this last part of a path if no other ends so. Throws ConfigError naming the nearest, or those
/// that it could be.
Section section_named(const Entry::Declare& root, const std::string& name);

/// Returns a table of the keys of a section and of those within it: name, type, default, allowed values, meaning.
std::string describe(const Entry::Declare& root, const Section& section);
/// Returns the same in Markdown.
std::string describe_markdown(const Entry::Declare& root, const Section& section);

/// Returns docs/reference.md: `note`, every section at the top of a configuration, then every plugin.
std::string reference_markdown(const Registry& registry, const Entry::Declare& root, std::string_view note);

}  // namespace brume
