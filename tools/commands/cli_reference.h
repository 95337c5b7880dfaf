#pragma once
#include <string>

#include "program/command_line.h"

namespace brume::tools {

/// Returns docs/cli.md: every command of the program with its options, in Markdown.
std::string cli_markdown(const Command& program);

}  // namespace brume::tools
