#include "serve/job_routes.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/number.h"
#include "serve/json_fields.h"
#include "serve/pictures.h"

namespace brume::tools {
namespace {

HttpAnswer answer_of(const nlohmann::ordered_json& json, int status = 200) {
  HttpAnswer answer;
  answer.status = status;
  answer.body = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return answer;
}

std::string event(const char* name, const nlohmann::ordered_json& data) {
  return fmt::format("event: {}\ndata: {}\n\n", name, data.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

bool is_over(const Job& job) { return job.record.state != "queued" && job.record.state != "running"; }

/// Writes the events of a job until it ends.
void follow(Jobs& jobs, const std::string& id, const HttpWrite& write) {
  int64_t version = -1, preview = 0;
  for (int quiet = 0;;) {
    const Job job = jobs.wait(id, version, std::chrono::milliseconds(500));
    if (job.version == version && !is_over(job)) {
      if (++quiet % 20 == 0 && !write(": waiting\n\n")) return;
      if (!write("")) return;
      continue;
    }
    version = job.version;
    if (job.preview_version > preview && !job.preview.empty()) {
      preview = job.preview_version;
      if (!write(event("preview", {{"step", job.step}, {"steps", job.steps}, {"image", base64_of(job.preview)}}))) return;
    }
    if (is_over(job)) {
      write(event(job.record.state == "done" ? "done" : "error", json_of(job)));
      return;
    }
    if (!write(event("progress", json_of(job)))) return;
  }
}

int64_t limit_of(const HttpRequest& r) {
  const std::string text = r.query_value("limit");
  if (text.empty()) return 50;
  const auto limit = parse_number<int64_t>(text);
  if (!limit || *limit < 1 || *limit > 1000) throw HttpError(400, "limit: is no whole number from 1 to 1000", "limit");
  return *limit;
}

HttpAnswer submitted(Jobs& jobs, const HttpRequest& r) {
  const Job job = jobs.submit(generation_of(json_body(r.body), jobs.options().limits), r.client);
  HttpAnswer answer = answer_of(json_of(job), 201);
  answer.header = warning_header(job.record.warnings);
  answer.header["Location"] = "/api/v1/jobs/" + job.record.id;
  return answer;
}

HttpAnswer listed(const Jobs& jobs, const HttpRequest& r) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const Job& job : jobs.list(r.query_value("search"), limit_of(r), r.query_value("before"))) all.push_back(json_of(job));
  return answer_of({{"jobs", all}});
}

HttpAnswer picture(const Jobs& jobs, const HttpRequest& r) {
  const std::string& file = r.names[1];
  const auto k = file.ends_with(".png") ? parse_number<int64_t>(file.substr(0, file.size() - 4)) : std::nullopt;
  if (!k) throw HttpError(404, "the pictures of a job are 0.png, 1.png, ...", "", "image_not_found");
  HttpAnswer answer;
  answer.body = jobs.picture_bytes(r.names[0], *k);
  answer.type = "image/png";
  answer.header["Cache-Control"] = "private, max-age=31536000, immutable";
  return answer;
}

constexpr const char* job_schema = R"({"type":"object","required":["id","state","images","request"],"properties":{
"id":{"type":"string"},"state":{"enum":["queued","running","done","failed","cancelled","interrupted"]},"position":{"type":"integer"},
"step":{"type":"integer"},"steps":{"type":"integer"},"done":{"type":"integer"},"total":{"type":"integer"},"rate":{"type":"number"},
"eta":{"type":["number","null"]},"created":{"type":"number"},"seconds":{"type":"number"},"request":{"type":"object"},
"images":{"type":"array","items":{"type":"object","properties":{"url":{"type":"string"}}}},
"error":{"type":"object","properties":{"message":{"type":"string"}}},"warnings":{"type":"array","items":{"type":"string"}}}})";

constexpr const char* request_schema = R"({"type":"object","properties":{"model":{"type":"string"},
"prompt":{"type":"string"},"prompts":{"type":"array","items":{"type":"string"}},"negative":{"type":"string"},
"negatives":{"type":"array","items":{"type":"string"}},"classes":{"type":"array","items":{"type":"string"}},
"count":{"type":"integer","minimum":1},"seed":{"type":["integer","string"]},"steps":{"type":"integer","minimum":1},
"cfg":{"type":"number"},"strength":{"type":"number","minimum":0,"maximum":1},"width":{"type":"integer","minimum":1},
"height":{"type":"integer","minimum":1},"sampler":{"type":["string","object"]},"spacing":{"type":["string","object"]},
"guidance":{"type":"array"},"image":{"type":"string","contentEncoding":"base64"},"mask":{"type":"string","contentEncoding":"base64"},
"loras":{"type":"array"},"preview":{"type":"integer","minimum":0},"client":{"type":"string"}}})";

/// Returns the plugins by kind. References of their schemas lead into that of configurations, /api/v1/schema.
nlohmann::ordered_json plugins_of(const Registry& registry) {
  const auto all = nlohmann::ordered_json::parse(json_schema(registry, [](Fields&) {}));
  nlohmann::ordered_json kinds;
  for (const std::string& kind : registry.kinds())
    for (const auto& schema : all["definitions"][kind]["anyOf"]) {
      if (!schema.contains("properties")) continue;
      const auto& type = schema["properties"]["type"];
      const std::string name = (type.contains("const") ? type : type["anyOf"][0])["const"];
      kinds[kind].push_back({{"name", name}, {"summary", registry.entry(kind, name).doc}, {"schema", schema}});
    }
  return kinds;
}

}  // namespace

std::map<std::string, std::string> warning_header(const std::vector<std::string>& warnings) {
  std::string text;
  for (const std::string& warning : warnings) text += (text.empty() ? "" : "; ") + warning;
  for (char& c : text)
    if (c < ' ' || c == 127) c = '?';
  return text.empty() ? std::map<std::string, std::string>{} : std::map<std::string, std::string>{{"Brume-Warning", text.substr(0, 1000)}};
}

void set_prompt(Generation& g, const ModelShelf& shelf, const std::string& prompt) {
  switch (shelf.prompt_of(g.model)) {
    case ModelShelf::Prompt::text: g.prompts = {prompt}; break;
    case ModelShelf::Prompt::class_name:
      if (!prompt.empty()) g.classes = {prompt};
      break;
    case ModelShelf::Prompt::nothing:
      if (!prompt.empty()) g.warnings.push_back("prompt changes nothing: the model takes neither words nor classes");
      break;
  }
}

HttpAnswer in_names_of(const FieldNames& names, const std::function<HttpAnswer()>& make) try { return make(); } catch (const HttpError& e) {
  std::string message = e.what(), field = e.field;
  for (const auto& [ours, theirs] : names)
    if (ours == e.field) field = theirs;
  for (const auto& [ours, theirs] : names)
    if (message.starts_with(ours + ":") || message.starts_with(ours + " ")) {
      message.replace(0, ours.size(), theirs);
      break;
    }
  throw HttpError(e.status, message, field, e.code);
}

Job finished(Jobs& jobs, Job job, const HttpRequest& request) {
  while (!is_over(job)) {
    job = jobs.wait(job.record.id, job.version, std::chrono::milliseconds(200));
    if (!is_over(job) && !request.alive()) jobs.cancel(job.record.id);
  }
  if (job.record.state == "done") return job;
  if (job.record.state == "failed") throw HttpError(job.error_status, job.record.error, job.error_field, job.error_code);
  throw HttpError(503, job.record.error.empty() ? "the job was cancelled" : job.record.error, "", job.record.state);
}

void add_job_routes(Server& server, Jobs& jobs) {
  server.add("POST", "/api/v1/jobs", {"Puts a request into the queue", request_schema, job_schema},
             [&](const HttpRequest& r) { return submitted(jobs, r); });
  server.add("GET", "/api/v1/jobs", {.summary = "The jobs, the latest first; ?search=&limit=&before="},
             [&](const HttpRequest& r) { return listed(jobs, r); });
  server.add("GET", "/api/v1/jobs/{id}", {.summary = "A job", .answer = job_schema},
             [&](const HttpRequest& r) { return answer_of(json_of(jobs.get(r.names[0]))); });
  server.add("POST", "/api/v1/jobs/{id}/cancel", {.summary = "Cancels a job within one step", .answer = job_schema},
             [&](const HttpRequest& r) { return answer_of(json_of(jobs.cancel(r.names[0]))); });
  server.add("DELETE", "/api/v1/jobs/{id}", {.summary = "Removes a job and its images"}, [&](const HttpRequest& r) {
    jobs.remove(r.names[0]);
    HttpAnswer answer;
    answer.status = 204;
    return answer;
  });
  server.add("GET", "/api/v1/jobs/{id}/events", {.summary = "Server-sent events: progress, preview, done, error"},
             [&](const HttpRequest& r) {
               const std::string id = jobs.get(r.names[0]).record.id;
               HttpAnswer answer;
               answer.type = "text/event-stream";
               answer.stream = [&jobs, id](const HttpWrite& write) { follow(jobs, id, write); };
               return answer;
             });
  server.add("GET", "/api/v1/jobs/{id}/images/{file}", {.summary = "An image of a job, K.png"},
             [&](const HttpRequest& r) { return picture(jobs, r); });
}

void add_model_routes(Server& server, const ModelShelf& shelf, const Registry& registry) {
  server.add("GET", "/api/v1/models", {.summary = "The models that are there, and the files of LoRAs"}, [&](const HttpRequest&) {
    return answer_of({{"models", shelf.list()}, {"loras", shelf.loras()}});
  });
  server.add("GET", "/api/v1/plugins", {.summary = "The plugins of every kind, each with the JSON Schema of its parameters"},
             [&](const HttpRequest&) {
               return answer_of({{"kinds", plugins_of(registry)}});
             });
}

void add_openapi_route(Server& server) {
  nlohmann::ordered_json paths;
  const auto schema = [](const std::string& text) {
    return nlohmann::ordered_json{
        {"application/json", {{"schema", text.empty() ? nlohmann::ordered_json::object() : nlohmann::ordered_json::parse(text)}}}};
  };
  const nlohmann::ordered_json error{{"description", "An error"},
                                     {"content", {{"application/json", {{"schema", {{"$ref", "#/components/schemas/Error"}}}}}}}};
  for (const Route& route : server.routes()) {
    if (route.pattern == "/" || route.pattern == "/{file}") continue;
    std::string path = route.pattern;
    if (const size_t dots = path.find("...}"); dots != path.npos) path.erase(dots, 3);
    std::string method = route.method;
    std::transform(method.begin(), method.end(), method.begin(), [](char c) { return char(std::tolower(c)); });
    nlohmann::ordered_json operation{{"summary", route.note.summary}, {"parameters", nlohmann::ordered_json::array()}};
    for (size_t at = path.find('{'); at != path.npos; at = path.find('{', at + 1))
      operation["parameters"].push_back({{"name", path.substr(at + 1, path.find('}', at) - at - 1)},
                                         {"in", "path"},
                                         {"required", true},
                                         {"schema", {{"type", "string"}}}});
    if (!route.note.body.empty()) operation["requestBody"] = {{"required", true}, {"content", schema(route.note.body)}};
    operation["responses"] = {
        {"2XX", {{"description", route.note.summary}, {"content", schema(route.note.answer)}}}, {"4XX", error}, {"5XX", error}};
    paths[path][method] = operation;
  }
  const nlohmann::ordered_json text{{"type", nlohmann::ordered_json::array({"string", "null"})}};
  const nlohmann::ordered_json document{
      {"openapi", "3.1.0"},
      {"info", {{"title", "brume"}, {"version", "1"}}},
      {"paths", paths},
      {"components",
       {{"schemas",
         {{"Error",
           {{"type", "object"},
            {"properties",
             {{"error", {{"type", "object"}, {"properties", {{"message", text}, {"type", text}, {"param", text}, {"code", text}}}}},
              {"detail", text}}}}}}},
        {"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}}}};
  server.add("GET", "/openapi.json", {.summary = "This document"}, [document](const HttpRequest&) { return answer_of(document); });
}

}  // namespace brume::tools
