#include "brume/interop/import/ldm_config.h"
#include "brume/config/tree.h"

#include <fmt/format.h>

#include <cmath>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/yaml.h"

namespace brume {
namespace {

const Value* walk(const Value* v, std::string_view path) {
  while (v && !path.empty()) {
    const size_t dot = path.find('.');
    v = v->is_map() ? v->find(path.substr(0, dot)) : nullptr;
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  }
  return v && !v->is_null() ? v : nullptr;
}

[[noreturn]] void refuse(const Value& v, std::string_view path, const char* wanted) {
  throw ConfigError({{v.place, fmt::format("model.params.{}", path), fmt::format("is {}, expected {}", v.kind_text(), wanted)}});
}

}  // namespace

LdmConfig::LdmConfig(const std::filesystem::path& file) : file_(file.string()), root_(load_yaml(file)) {}

bool LdmConfig::is_ldm() const { return walk(&root_, "model.target") && walk(&root_, "model.params"); }

const Value* LdmConfig::find(std::string_view path) const { return walk(walk(&root_, "model.params"), path); }

std::optional<double> LdmConfig::number(std::string_view path) const {
  const Value* v = find(path);
  if (!v) return {};
  const auto value = v->is_scalar() ? parse_number<double>(v->scalar) : std::nullopt;
  if (!value) refuse(*v, path, "a number");
  return value;
}

std::optional<int64_t> LdmConfig::integer(std::string_view path) const {
  const Value* v = find(path);
  if (!v) return {};
  const auto value = v->is_scalar() ? parse_number<int64_t>(v->scalar) : std::nullopt;
  if (!value) refuse(*v, path, "a whole number");
  return value;
}

std::optional<std::string> LdmConfig::word(std::string_view path) const {
  const Value* v = find(path);
  if (!v) return {};
  if (!v->is_scalar()) refuse(*v, path, "a word");
  return v->scalar;
}

bool LdmConfig::truth(std::string_view path, bool otherwise) const {
  const std::string text = word(path).value_or(otherwise ? "true" : "false");
  if (text == "True" || text == "true") return true;
  if (text == "False" || text == "false") return false;
  refuse(*find(path), path, "true or false");
}

std::string LdmConfig::target(std::string_view path) const {
  const Value* v = path.empty() ? walk(&root_, "model.target") : find(fmt::format("{}.target", path));
  if (!v || !v->is_scalar()) return "";
  return v->scalar.substr(v->scalar.rfind('.') + 1);
}

namespace {

/// Returns a schedule; CompVis' "linear" is linear in the square roots of beta, and its "sqrt_linear" in beta itself.
Value linear(const char* type, double start, double end, int64_t timesteps, int digits = 7) {
  return plugin_of(
      type,
      {{"timesteps", timesteps}, {"beta_start", fmt::format("{:.{}g}", start, digits)}, {"beta_end", fmt::format("{:.{}g}", end, digits)}});
}

bool near(const LdmBetas& betas, double power) {
  const std::vector<double>& values = betas.values;
  const double first = std::pow(values.front(), power), rise = std::pow(values.back(), power) - first;
  for (size_t i = 0; i < values.size(); ++i) {
    const double wanted = first + rise * double(i) / double(values.size() - 1);
    if (!(std::abs(std::pow(wanted, 1 / power) - values[i]) <= betas.rounding * values.back())) return false;
  }
  return true;
}

Value of_betas(const LdmBetas& betas) {
  const int digits = betas.rounding > 2e-3 ? 2 : betas.rounding > 1e-5 ? 3 : 7;  // as few as the stored ends have right
  for (const auto& [type, power] : {std::pair("scaled_linear", 0.5), std::pair("linear", 1.0)})
    if (near(betas, power)) return linear(type, betas.values.front(), betas.values.back(), int64_t(betas.values.size()), digits);
  std::vector<std::string> all;
  for (const double beta : betas.values) all.push_back(fmt::format("{:.9g}", beta));
  return plugin_of("betas", {{"betas", all}});
}

}  // namespace

Value ldm_schedule(const LdmConfig& config, const LdmBetas& betas) {
  if (!config.there()) return betas.values.size() > 1 ? of_betas(betas) : Value();
  const std::string kind = config.word("beta_schedule").value_or("linear");
  const int64_t timesteps = config.integer("timesteps").value_or(1000);
  const double start = config.number("linear_start").value_or(1e-4), end = config.number("linear_end").value_or(2e-2);
  if (kind == "linear") return linear("scaled_linear", start, end, timesteps);
  if (kind == "sqrt_linear") return linear("linear", start, end, timesteps);
  if (kind == "cosine") return plugin_of("cosine", {{"timesteps", timesteps}, {"s", config.number("cosine_s").value_or(8e-3)}});
  throw ConfigError({{config.find("beta_schedule")->place, "model.params.beta_schedule",
                      fmt::format("is '{}'; known are linear, sqrt_linear and cosine", kind)}});
}

}  // namespace brume
