#pragma once
#include <CLI/CLI.hpp>
#include <string>

namespace brume::tools {

/// Returns docs/cli.md: every command of the program with its options, in Markdown.
std::string cli_markdown(const CLI::App& program);

}  // namespace brume::tools
