#include "serve/openai_routes.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/number.h"
#include "serve/job_routes.h"
#include "serve/json_fields.h"
#include "serve/pictures.h"

namespace brume::tools {
namespace {

constexpr const char* generation_schema = R"({"type":"object","required":["prompt"],"properties":{"prompt":{"type":"string"},
"model":{"type":"string"},"n":{"type":"integer","minimum":1},"size":{"type":"string"},"response_format":{"enum":["url","b64_json"]},
"user":{"type":"string"},"seed":{"type":["integer","string"]},"negative_prompt":{"type":"string"},"steps":{"type":"integer"},
"cfg":{"type":"number"},"sampler":{"type":["string","object"]}}})";
constexpr const char* images_schema = R"({"type":"object","properties":{"created":{"type":"integer"},"data":{"type":"array","items":
{"type":"object","properties":{"b64_json":{"type":"string"},"url":{"type":"string"}}}}}})";

HttpAnswer answer_of(const nlohmann::ordered_json& json) {
  HttpAnswer answer;
  answer.body = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return answer;
}

/// Reads "512x256"; "auto" is the size of the model.
void set_size(Generation& g, const std::string& size) {
  if (size.empty() || size == "auto") return;
  const size_t x = size.find('x');
  const auto width = parse_number<int64_t>(size.substr(0, x)),
             height = x == size.npos ? std::nullopt : parse_number<int64_t>(size.substr(x + 1));
  if (!width || !height || *width < 1 || *height < 1 || *width > 16384 || *height > 16384)
    throw HttpError(400, "size: is no WIDTHxHEIGHT in pixels, and not 'auto'", "size", "invalid_size");
  g.width = *width, g.height = *height;
}

struct ReadRequest {
  Generation generation;
  bool as_url = false;
};

const FieldNames& names() {
  static const FieldNames all{{"classes", "prompt"}, {"prompts", "prompt"},     {"negatives", "negative_prompt"},
                              {"count", "n"},        {"width, height", "size"}, {"width", "size"},
                              {"height", "size"}};
  return all;
}

ReadRequest read_request(const nlohmann::json& body, const Jobs& jobs, std::string image = "", std::string mask = "") {
  JsonFields f(body);
  ReadRequest request;
  Generation& g = request.generation;
  const auto prompt = f.text("prompt");
  if (!prompt) throw HttpError(400, "prompt: is missing", "prompt", "missing_required_parameter");
  g.model = f.text("model", 1000).value_or("");
  // Names of OpenAI's own models mean the one model of this server.
  const std::vector<std::string> ids = jobs.shelf().ids(true);
  if (ids.size() == 1 && (g.model.starts_with("dall-e") || g.model.starts_with("gpt-image"))) g.model = ids.front();
  g.model = jobs.shelf().id_of(g.model);
  set_prompt(g, jobs.shelf(), *prompt);
  g.count = f.whole("n", 1, jobs.options().limits.images).value_or(1);
  set_size(g, f.text("size", 20).value_or(""));
  const std::string format = f.text("response_format", 20).value_or("b64_json");
  if (format != "url" && format != "b64_json") throw HttpError(400, "response_format: is neither 'url' nor 'b64_json'", "response_format");
  request.as_url = format == "url";
  if (const auto output = f.text("output_format", 20); output && *output != "png")
    throw HttpError(400, "output_format: the images are 'png'", "output_format");
  g.client = f.text("user", 200).value_or("");
  g.seed = f.seed("seed").value_or(0);
  g.steps = f.whole("steps", 1, 10000);
  g.cfg = f.real("cfg", -1000, 1000);
  g.strength = f.real("strength", 0, 1);
  g.sampler = f.plugin("sampler");
  if (const auto negative = f.text("negative_prompt"); negative && !negative->empty()) g.negatives = {*negative};
  f.ignore({"quality", "style", "background", "moderation", "output_compression", "stream", "partial_images", "input_fidelity"});
  if (const auto stream = f.flag("stream"); stream && *stream) throw HttpError(400, "stream: the answer comes as a whole", "stream");
  for (std::string& unknown : f.unknown()) g.warnings.push_back(std::move(unknown));
  g.image = std::move(image), g.mask = std::move(mask);
  check_limits(g, jobs.options().limits);
  return request;
}

HttpAnswer made(Jobs& jobs, ReadRequest request, const HttpRequest& r) {
  const Job job = finished(jobs, jobs.submit(std::move(request.generation), r.client), r);
  const std::string host = r.header_value("host");
  nlohmann::ordered_json data = nlohmann::ordered_json::array();
  for (int64_t k = 0; k < job.record.images; ++k)
    data.push_back(request.as_url
                       ? nlohmann::ordered_json{{"url", fmt::format("http://{}/api/v1/jobs/{}/images/{}.png", host, job.record.id, k)}}
                       : nlohmann::ordered_json{{"b64_json", base64_of(jobs.picture_bytes(job.record.id, k))}});
  HttpAnswer answer = answer_of({{"created", int64_t(job.record.created)}, {"data", data}});
  answer.header = warning_header(job.record.warnings);
  return answer;
}

/// Reads a form of /v1/images/edits. Transparent places of the mask are generated, as OpenAI has it.
ReadRequest edit_in(const HttpRequest& r, const Jobs& jobs) {
  nlohmann::json body = nlohmann::json::object();
  std::string image, mask;
  for (const FormPart& part : r.parts) {
    if (part.name == "image" || part.name == "image[]") {
      if (!image.empty()) throw HttpError(400, "image: one picture is edited", "image");
      image = part.content;
    } else if (part.name == "mask") {
      mask = mask_of_transparency(part.content, jobs.options().limits.pixels);
    } else if (part.content.size() > 100000) {
      throw HttpError(400, "a field of the form is longer than 100000 bytes", "body");
    } else if (part.name == "n" || part.name == "steps" || part.name == "cfg" || part.name == "strength") {
      const auto number = parse_number<double>(part.content);
      if (!number) throw HttpError(400, part.name + ": is no number", part.name);
      body[part.name] = *number;
    } else if (part.name == "stream" && (part.content == "true" || part.content == "false")) {
      body[part.name] = part.content == "true";
    } else {
      body[part.name] = std::string(part.content);
    }
  }
  if (r.parts.empty()) throw HttpError(400, "the body is no multipart/form-data", "body");
  if (image.empty()) throw HttpError(400, "image: is missing", "image", "missing_required_parameter");
  return read_request(json_body(body.dump(-1, ' ', false, nlohmann::json::error_handler_t::strict)), jobs, std::move(image),
                      std::move(mask));
}

HttpAnswer models(const Jobs& jobs) {
  nlohmann::ordered_json data = nlohmann::ordered_json::array();
  for (const std::string& id : jobs.shelf().ids()) data.push_back({{"id", id}, {"object", "model"}, {"created", 0}, {"owned_by", "brume"}});
  return answer_of({{"object", "list"}, {"data", data}});
}

}  // namespace

void add_openai_routes(Server& server, Jobs& jobs) {
  server.add(
      "POST", "/v1/images/generations", {"Makes images, as OpenAI's API does", generation_schema, images_schema},
      [&](const HttpRequest& r) { return in_names_of(names(), [&] { return made(jobs, read_request(json_body(r.body), jobs), r); }); });
  server.add("POST", "/v1/images/edits", {"Edits an image: a form with image, mask and prompt", R"({"type":"object"})", images_schema},
             [&](const HttpRequest& r) {
               try {
                 return in_names_of(names(), [&] { return made(jobs, edit_in(r, jobs), r); });
               } catch (const nlohmann::json::exception&) {
                 throw HttpError(400, "a field of the form is no UTF-8", "body");
               }
             });
  server.add("GET", "/v1/models", {.summary = "The models, as OpenAI's API lists them"}, [&](const HttpRequest&) { return models(jobs); });
  server.add("GET", "/v1/models/{id...}", {.summary = "A model, as OpenAI's API describes it"}, [&](const HttpRequest& r) {
    return answer_of({{"id", jobs.shelf().id_of(r.names[0])}, {"object", "model"}, {"created", 0}, {"owned_by", "brume"}});
  });
}

}  // namespace brume::tools
