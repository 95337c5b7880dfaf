#pragma once
// The public reference numbers (shared/refs next to the project; its README says what each file holds). They are read in
// place and never copied into the project; tests skip, saying so, if they are absent.
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace brume::test {

/// The path of shared/refs/NAME: under $BRUME_SHARED, else next to the project.
std::filesystem::path ref_path(const std::string& name);
bool has_ref(const std::string& name);
/// A JSON file of shared/refs, parsed once.
const nlohmann::json& ref_json(const std::string& name);

/// An entry of a list of cases.
struct RefCase {
  std::string file;
  size_t index;
};
/// The entries of `list` in the file NAME of shared/refs and in that of shared/cases, as far as they are there, for which `wanted` holds.
std::vector<RefCase> ref_cases(const std::string& name, const char* list, const std::function<bool(const nlohmann::json&)>& wanted);
const nlohmann::json& ref_case(const RefCase& c, const char* list);
/// The name of a case in tests: its id, after "more_" if it is one of shared/cases.
std::string ref_name(const RefCase& c, const std::string& id);

/// The flat, row-major values of a reference as a tensor.
at::Tensor tensor_of(const nlohmann::json& values, at::IntArrayRef shape, at::ScalarType dtype = at::kFloat);

}  // namespace brume::test

#define BRUME_NEED_REF(name)         \
  if (!::brume::test::has_ref(name)) \
  GTEST_SKIP() << ::brume::test::ref_path(name).string() << " is not there (BRUME_SHARED names another place)"
