#include "serve/run_routes.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/config/number.h"
#include "brume/files/mapped_file.h"
#include "brume/train/options.h"
#include "serve/checking.h"
#include "serve/json_fields.h"
#include "serve/plot_answers.h"
#include "serve/run_answers.h"
#include "serve/studio_files.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

constexpr int64_t most_steps = 200;  ///< of a plot
constexpr size_t most_plugins = 12;  ///< in a plot
constexpr size_t longest_yaml = 1 << 20;

HttpAnswer json_answer(std::string body) { return {.body = std::move(body)}; }

/// The fields of a JSON object that a request carries.
class Body {
 public:
  Body(const HttpRequest& request, std::vector<std::string> known) : json_(json_body(request.body)) {
    for (const auto& [key, value] : json_.items())
      if (std::find(known.begin(), known.end(), key) == known.end())
        throw HttpError(400, fmt::format("unknown field '{}'; known: {}", key, fmt::join(known, ", ")), key, "unknown_field");
  }
  std::string text(const std::string& key, const std::string& standard = "") const {
    return read<std::string>(
        key, standard, [](const nlohmann::json& j) { return j.is_string(); }, "a text");
  }
  int64_t whole(const std::string& key, int64_t standard, int64_t low, int64_t high) const {
    const auto fits = [&](const nlohmann::json& j) {
      return j.is_number_integer() && !(j.is_number_unsigned() && j.get<uint64_t>() > uint64_t(high)) && j.get<int64_t>() >= low &&
             j.get<int64_t>() <= high;
    };
    return read<int64_t>(key, standard, fits, fmt::format("a whole number from {} to {}", low, high));
  }
  bool truth(const std::string& key) const {
    return read<bool>(
        key, false, [](const nlohmann::json& j) { return j.is_boolean(); }, "true or false");
  }
  Words words(const std::string& key) const {
    const auto fits = [](const nlohmann::json& j) {
      return j.is_array() && j.size() <= most_plugins && std::all_of(j.begin(), j.end(), [](const auto& item) { return item.is_string(); });
    };
    return read<Words>(key, {}, fits, fmt::format("a list of at most {}", counted(most_plugins, "text")));
  }

 private:
  template <class T, class F>
  T read(const std::string& key, T standard, const F& fits, const std::string& what) const {
    const auto at = json_.find(key);
    if (at == json_.end()) return standard;
    if (!fits(*at)) throw HttpError(400, fmt::format("{}: is not {}", key, what), key, "invalid_value");
    return at->template get<T>();
  }
  nlohmann::json json_;
};

fs::path run_of(const fs::path& runs, const std::string& name) {
  const auto run = run_directory(runs, name);
  if (!run) throw HttpError(404, fmt::format("there is no run '{}'", name), "name", "unknown_run");
  return *run;
}

HttpAnswer grid_of(const fs::path& run, const std::string& file) {
  const auto step = file.ends_with(".png") ? parse_number<int64_t>(std::string_view(file).substr(0, file.size() - 4)) : std::nullopt;
  const auto path = step ? grid_file(run, *step) : std::nullopt;
  if (!path) throw HttpError(404, fmt::format("the run has no sample grid '{}'; its grids are STEP.png", file), "step", "unknown_grid");
  return {.body = std::string(MappedFile::open(path->string())->bytes()), .type = "image/png"};
}

void add_readers(Server& server, const fs::path& runs) {
  server.add("GET", "/api/v1/runs", {.summary = "The runs in the server's folder, and the keys in which they differ"},
             [runs](const HttpRequest&) { return json_answer(runs_json(runs)); });
  server.add("GET", "/api/v1/runs/{name}", {.summary = "A run: configuration, figures, evaluations and steps of sample grids"},
             [runs](const HttpRequest& r) { return json_answer(run_json(run_of(runs, r.names[0]), r.names[0])); });
  server.add("GET", "/api/v1/runs/{name}/metrics", {.summary = "The figures of a run by columns; those after step `after` alone"},
             [runs](const HttpRequest& r) {
               const std::string text = r.query_value("after");
               const auto after = text.empty() ? int64_t(-1) : parse_signed_number<int64_t>(text);
               if (!after) throw HttpError(400, fmt::format("after: '{}' is no whole number", text), "after", "invalid_value");
               return json_answer(metrics_json(run_of(runs, r.names[0]), *after));
             });
  server.add("GET", "/api/v1/runs/{name}/grids/{file}", {.summary = "The sample grid of a step, STEP.png"},
             [runs](const HttpRequest& r) { return grid_of(run_of(runs, r.names[0]), r.names[1]); });
}

void add_trainings(Server& server, const Registry& registry, Trainings& trainings) {
  server.add("POST", "/api/v1/check",
             {.summary = "What is wrong with the configuration of a training",
              .body = R"({"type": "object", "properties": {"yaml": {"type": "string"}}, "required": ["yaml"]})"},
             [&registry](const HttpRequest& r) {
               const std::string yaml = Body(r, {"yaml"}).text("yaml");
               if (yaml.size() > longest_yaml) throw HttpError(413, "yaml: is longer than 1 MB", "yaml", "too_long");
               return json_answer(check_json(registry, yaml));
             });
  server.add("GET", "/api/v1/trainings", {.summary = "The trainings that this server started"},
             [&trainings](const HttpRequest&) { return json_answer(trainings.json()); });
  server.add(
      "POST", "/api/v1/trainings",
      {.summary = "Starts a training as a new run",
       .body =
           R"({"type": "object", "properties": {"name": {"type": "string"}, "yaml": {"type": "string"}}, "required": ["name", "yaml"]})"},
      [&registry, &trainings](const HttpRequest& r) {
        const Body body(r, {"name", "yaml"});
        if (body.text("yaml").size() > longest_yaml) throw HttpError(413, "yaml: is longer than 1 MB", "yaml", "too_long");
        trainings.start(registry, body.text("name"), body.text("yaml"));
        return json_answer(trainings.json());
      });
  server.add("POST", "/api/v1/trainings/{name}/stop", {.summary = "Asks a training to stop with a checkpoint"},
             [&trainings](const HttpRequest& r) { return trainings.stop(r.names[0]), json_answer(trainings.json()); });
  server.add("POST", "/api/v1/trainings/{name}/resume", {.summary = "Continues a stopped run at its checkpoint"},
             [&trainings](const HttpRequest& r) { return trainings.resume(r.names[0]), json_answer(trainings.json()); });
  server.add("GET", "/api/v1/schema", {.summary = "JSON Schema of a configuration, with the parameters of every plugin"},
             [&registry](const HttpRequest&) { return json_answer(json_schema(registry, [](Fields& f) { Config().declare(f); })); });
  server.add("GET", "/api/v1/examples", {.summary = "Configurations to begin with"},
             [](const HttpRequest&) { return json_answer(examples_json()); });
}

void add_plots(Server& server, const Registry& registry) {
  server.add("POST", "/api/v1/plot/schedules", {.summary = "Noise schedules over training time"}, [&registry](const HttpRequest& r) {
    return json_answer(schedules_json(registry, Body(r, {"schedules"}).words("schedules")));
  });
  server.add("POST", "/api/v1/plot/spacings", {.summary = "The sigmas of the steps of a run"}, [&registry](const HttpRequest& r) {
    const Body body(r, {"spacings", "noise", "steps"});
    return json_answer(
        spacings_json(registry, body.words("spacings"), body.text("noise", "scaled_linear"), body.whole("steps", 20, 1, most_steps)));
  });
  server.add(
      "POST", "/api/v1/plot/samplers", {.summary = "Paths of samplers in the plane, and their errors"}, [&registry](const HttpRequest& r) {
        const Body body(r, {"samplers", "noise", "spacing", "steps", "seed", "errors"});
        const SamplerPlot standard;
        return json_answer(samplers_json(
            registry,
            {body.words("samplers"), body.text("noise", standard.noise), body.text("spacing", standard.spacing),
             body.whole("steps", standard.steps, 1, most_steps), uint64_t(body.whole("seed", 0, 0, INT64_MAX)), body.truth("errors")}));
      });
}

}  // namespace

void add_run_routes(Server& server, const Registry& registry, const fs::path& runs, Trainings& trainings) {
  add_readers(server, runs);
  add_trainings(server, registry, trainings);
  add_plots(server, registry);
}

}  // namespace brume::tools
