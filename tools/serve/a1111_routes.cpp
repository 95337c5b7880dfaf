#include "serve/a1111_routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <random>

#include "brume/image/png.h"
#include "brume/interop/infotext.h"
#include "brume/like.h"
#include "serve/job_routes.h"
#include "serve/json_fields.h"
#include "serve/pictures.h"

namespace brume::tools {
namespace {

HttpAnswer answer_of(const nlohmann::ordered_json& json) {
  HttpAnswer answer;
  answer.body = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return answer;
}

const LikeProgram& webui() {
  for (const LikeProgram& program : like_programs())
    if (std::string_view(program.name) == "a1111") return program;
  throw std::logic_error("like_programs() does not know a1111");
}

/// The model that clients have chosen by /sdapi/v1/options; "" = none.
class Chosen {
 public:
  std::string get() const {
    const std::lock_guard guard(lock_);
    return model_;
  }
  void set(std::string model) {
    const std::lock_guard guard(lock_);
    model_ = std::move(model);
  }

 private:
  mutable std::mutex lock_;
  std::string model_;
};

std::string model_of(const Jobs& jobs, const Chosen& chosen) {
  const std::vector<std::string> ids = jobs.shelf().ids(true);
  if (const std::string model = chosen.get(); std::find(ids.begin(), ids.end(), model) != ids.end()) return model;
  return ids.empty() ? "" : ids.front();
}

const FieldNames& names() {
  static const FieldNames all{
      {"classes", "prompt"},    {"prompts", "prompt"}, {"negatives", "negative_prompt"},   {"sampler", "sampler_name"},
      {"spacing", "scheduler"}, {"cfg", "cfg_scale"},  {"strength", "denoising_strength"}, {"count", "batch_size"},
      {"image", "init_images"}};
  return all;
}

/// Names of the program: "Euler a", "DPM++ 2M Karras", "DPM++ 2M" with the scheduler "Karras"; a name of brume's is one too.
void set_sampler(Generation& g, JsonFields& f) {
  std::string sampler = f.text("sampler_name", 200).value_or("");
  if (sampler.empty()) sampler = f.text("sampler_index", 200).value_or("");
  std::string scheduler = f.text("scheduler", 200).value_or("");
  f.ignore({"sampler_index"});
  if (scheduler == "Automatic" || scheduler == "automatic") scheduler.clear();
  g.like = "a1111";  // its noise and its prompts
  if (sampler.empty() && scheduler.empty()) return;
  if (sampler.empty()) sampler = "Euler";
  const auto& known = webui().samplers;
  const bool theirs = std::any_of(known.begin(), known.end(), [&](const LikeName& n) { return sampler.starts_with(n.name); });
  if (!theirs) {
    g.sampler = sampler, g.spacing = scheduler;
    return;
  }
  g.like += ":" + sampler + (scheduler.empty() ? "" : " " + scheduler);
}

std::string first_picture(JsonFields& f) {
  const nlohmann::json* list = f.find("init_images");
  if (!list || !list->is_array() || list->empty() || !list->front().is_string())
    throw HttpError(400, "init_images: is no list of pictures in base64", "init_images");
  if (list->size() > 1) throw HttpError(400, "init_images: one picture is taken", "init_images");
  return base64_decoded(list->front().get_ref<const std::string&>(), "init_images");
}

/// What clients of that program send besides, with the values that change nothing there either. An empty list: any value.
constexpr const char* not_taken =
    R"({"enable_hr": [false], "hr_scale": [], "hr_upscaler": [], "hr_second_pass_steps": [], "hr_resize_x": [],
"hr_resize_y": [], "hr_prompt": [], "hr_negative_prompt": [], "hr_sampler_name": [], "hr_scheduler": [], "hr_checkpoint_name": [],
"hr_additional_modules": [], "firstphase_width": [], "firstphase_height": [], "denoising_strength": [], "image_cfg_scale": [],
"styles": [[]], "subseed": [],
"subseed_strength": [0], "seed_resize_from_h": [0, -1], "seed_resize_from_w": [0, -1], "restore_faces": [false],
"tiling": [false], "eta": [0, 1], "s_churn": [0], "s_tmax": [], "s_tmin": [0], "s_noise": [1], "s_min_uncond": [0], "script_name": [""],
"script_args": [], "alwayson_scripts": [{}, {"ControlNet": {"args": []}}], "use_deprecated_controlnet": [false], "resize_mode": [0],
"mask_blur": [0, 4], "mask_blur_x": [0, 4], "mask_blur_y": [0, 4], "mask_round": [true], "inpainting_fill": [0, 1], "inpaint_full_res": [],
"inpaint_full_res_padding": [], "initial_noise_multiplier": [0, 1], "disable_extra_networks": [false], "refiner_checkpoint": [""],
"refiner_switch_at": [], "comments": [], "save_images": [], "send_images": [], "do_not_save_samples": [], "do_not_save_grid": [],
"include_init_images": [], "override_settings_restore_afterwards": [], "force_task_id": [], "infotext": [""]})";

/// Adds a warning per field that has an effect there and none here.
void name_not_taken(JsonFields& f, std::vector<std::string>& warnings) {
  static const auto fields = nlohmann::json::parse(not_taken);
  for (const auto& [name, neutral] : fields.items()) {
    const nlohmann::json* value = f.find(name.c_str());
    if (value && !neutral.empty() && std::find(neutral.begin(), neutral.end(), *value) == neutral.end())
      warnings.push_back(fmt::format("{} changes nothing on this server", name));
  }
}

struct ReadRequest {
  Generation generation;
  nlohmann::ordered_json parameters;
  bool send = true;
};

ReadRequest read_request(const nlohmann::json& body, const Jobs& jobs, const Chosen& chosen, bool from_image) {
  JsonFields f(body);
  ReadRequest request;
  Generation& g = request.generation;
  g.model = model_of(jobs, chosen);
  if (const nlohmann::json* settings = f.find("override_settings"); settings && settings->is_object())
    if (const auto named = JsonFields(*settings).text("sd_model_checkpoint", 1000)) g.model = *named;
  g.model = jobs.shelf().id_of(g.model);
  const std::string prompt = f.text("prompt").value_or(""), negative = f.text("negative_prompt").value_or("");
  set_prompt(g, jobs.shelf(), prompt);
  if (!negative.empty() && !g.prompts.empty()) g.negatives = {negative};
  g.count = f.whole("batch_size", 1, 100000).value_or(1) * f.whole("n_iter", 1, 100000).value_or(1);
  g.seed = f.seed("seed").value_or(std::random_device()());
  g.steps = f.whole("steps", 1, 10000);
  g.cfg = f.real("cfg_scale", -1000, 1000);
  g.width = f.whole("width", 1, 16384).value_or(0), g.height = f.whole("height", 1, 16384).value_or(0);
  set_sampler(g, f);
  request.send = f.flag("send_images").value_or(true);
  if (from_image) {
    g.image = first_picture(f);
    if (const auto mask = f.text("mask", size_t(128) << 20); mask && !mask->empty()) g.mask = base64_decoded(*mask, "mask");
    g.strength = f.real("denoising_strength", 0, 1).value_or(0.75);
    if (f.whole("inpainting_mask_invert", 0, 1).value_or(0) == 1)
      throw HttpError(400, "inpainting_mask_invert: paint white what is to be generated", "inpainting_mask_invert");
  }
  std::vector<std::string> unused;
  name_not_taken(f, unused);
  for (std::string& unknown : f.unknown()) unused.push_back(std::move(unknown));
  g.warnings.insert(g.warnings.end(), unused.begin(), unused.end());
  check_limits(g, jobs.options().limits);
  request.parameters = nlohmann::ordered_json::parse(body.dump());
  for (const char* picture : {"init_images", "mask"}) request.parameters.erase(picture);
  return request;
}

HttpAnswer made(Jobs& jobs, ReadRequest request, const HttpRequest& r) {
  const Generation g = request.generation;
  const Job job = finished(jobs, jobs.submit(std::move(request.generation), r.client), r);
  nlohmann::ordered_json images = nlohmann::ordered_json::array(), seeds = nlohmann::ordered_json::array();
  for (int64_t k = 0; k < job.record.images && request.send; ++k) images.push_back(base64_of(jobs.picture_bytes(job.record.id, k)));
  nlohmann::ordered_json texts = nlohmann::ordered_json::array();
  for (int64_t k = 0; k < job.record.images; ++k) {
    seeds.push_back(g.seed + uint64_t(k));
    const PngText items = png_text(jobs.picture_bytes(job.record.id, k), "image");
    texts.push_back(items.contains("parameters") ? items.at("parameters") : "");
  }
  const auto first = [](const std::vector<std::string>& texts) { return texts.empty() ? std::string() : texts[0]; };
  const nlohmann::ordered_json info{{"prompt", first(g.prompts.empty() ? g.classes : g.prompts)},
                                    {"negative_prompt", first(g.negatives)},
                                    {"infotexts", texts},
                                    {"seed", g.seed},
                                    {"all_seeds", seeds},
                                    {"sd_model_name", g.model},
                                    {"job", job.record.id}};
  HttpAnswer answer = answer_of({{"images", images}, {"parameters", request.parameters}, {"info", info.dump()}});
  answer.header = warning_header(job.record.warnings);
  return answer;
}

HttpAnswer progress(const Jobs& jobs) {
  const auto job = jobs.running();
  const double share = job && job->total > 0 ? double(job->done) / double(job->total) : 0;
  nlohmann::ordered_json image;
  if (job && !job->preview.empty()) image = base64_of(job->preview);
  return answer_of({{"progress", share},
                    {"eta_relative", job ? job->eta : 0.0},
                    {"state",
                     {{"skipped", false},
                      {"interrupted", job && job->cancelled},
                      {"job", job ? job->record.id : ""},
                      {"job_count", job ? 1 : 0},
                      {"sampling_step", job ? job->step : 0},
                      {"sampling_steps", job ? job->steps : 0}}},
                    {"current_image", image},
                    {"textinfo", nullptr}});
}

HttpAnswer names_of(const std::vector<LikeName>& names) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const LikeName& n : names)
    all.push_back(
        {{"name", n.name}, {"label", n.name}, {"aliases", nlohmann::ordered_json::array()}, {"options", nlohmann::ordered_json::object()}});
  return answer_of(all);
}

HttpAnswer png_info(const HttpRequest& r) {
  const nlohmann::json body = json_body(r.body);
  JsonFields f(body);
  const auto text = f.text("image", size_t(128) << 20);
  if (!text) throw HttpError(400, "image: is missing", "image");
  const std::string bytes = base64_decoded(*text, "image");
  if (!is_png(bytes)) throw HttpError(400, "image: is no PNG", "image");
  const PngText items = png_text(bytes, "image");
  const auto find = [&](const char* key) { return items.contains(key) ? items.at(key) : std::string(); };
  return answer_of({{"info", items.contains("parameters") ? find("parameters") : find("brume")},
                    {"items", items},
                    {"parameters", infotext_fields(find("parameters"))}});
}

void add_lists(Server& server, Jobs& jobs) {
  // What clients read when they start: empty, as the server has none of it.
  const nlohmann::ordered_json list = nlohmann::ordered_json::array(), object = nlohmann::ordered_json::object();
  const std::pair<const char*, nlohmann::ordered_json> absent[] = {{"upscalers", list},
                                                                   {"latent-upscale-modes", list},
                                                                   {"hypernetworks", list},
                                                                   {"face-restorers", list},
                                                                   {"realesrgan-models", list},
                                                                   {"prompt-styles", list},
                                                                   {"sd-vae", list},
                                                                   {"sd-modules", list},
                                                                   {"extensions", list},
                                                                   {"script-info", list},
                                                                   {"scripts", {{"txt2img", list}, {"img2img", list}}},
                                                                   {"embeddings", {{"loaded", object}, {"skipped", object}}},
                                                                   {"cmd-flags", object}};
  for (const auto& [name, empty] : absent)
    server.add("GET", std::string("/sdapi/v1/") + name, {.summary = "Empty: the server has none"},
               [empty = empty](const HttpRequest&) { return answer_of(empty); });
  for (const char* done : {"refresh-checkpoints", "refresh-loras", "refresh-embeddings", "refresh-vae"})
    server.add("POST", std::string("/sdapi/v1/") + done, {.summary = "Does nothing: new files are found without it"},
               [](const HttpRequest&) { return answer_of(nullptr); });
  server.add("GET", "/sdapi/v1/samplers", {.summary = "The names of samplers", .answer = R"({"type":"array"})"},
             [](const HttpRequest&) { return names_of(webui().samplers); });
  server.add("GET", "/sdapi/v1/schedulers", {.summary = "The names of spacings", .answer = R"({"type":"array"})"},
             [](const HttpRequest&) { return names_of(webui().spacings); });
  server.add("GET", "/sdapi/v1/sd-models", {.summary = "The models", .answer = R"({"type":"array"})"}, [&](const HttpRequest&) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const std::string& id : jobs.shelf().ids())
      all.push_back({{"title", id}, {"model_name", id}, {"filename", id}, {"hash", nullptr}, {"sha256", nullptr}, {"config", nullptr}});
    return answer_of(all);
  });
  server.add("GET", "/sdapi/v1/loras", {.summary = "The files of LoRAs", .answer = R"({"type":"array"})"}, [&](const HttpRequest&) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const std::string& name : jobs.shelf().loras())
      all.push_back(
          {{"name", name.substr(0, name.rfind('.'))}, {"alias", name}, {"path", name}, {"metadata", nlohmann::ordered_json::object()}});
    return answer_of(all);
  });
}

}  // namespace

void add_a1111_routes(Server& server, Jobs& jobs) {
  const auto chosen = std::make_shared<Chosen>();
  const std::string object = R"({"type":"object"})";
  server.add("POST", "/sdapi/v1/txt2img", {"Makes images", object, object}, [&jobs, chosen](const HttpRequest& r) {
    return in_names_of(names(), [&] { return made(jobs, read_request(json_body(r.body), jobs, *chosen, false), r); });
  });
  server.add("POST", "/sdapi/v1/img2img", {"Makes images of an image", object, object}, [&jobs, chosen](const HttpRequest& r) {
    return in_names_of(names(), [&] { return made(jobs, read_request(json_body(r.body), jobs, *chosen, true), r); });
  });
  server.add("GET", "/sdapi/v1/progress", {.summary = "How far the running job is"}, [&](const HttpRequest&) { return progress(jobs); });
  for (const char* route : {"/sdapi/v1/interrupt", "/sdapi/v1/skip"})
    server.add("POST", route, {.summary = "Cancels the running job"}, [&](const HttpRequest&) {
      jobs.interrupt();
      return answer_of(nlohmann::ordered_json::object());
    });
  server.add("GET", "/sdapi/v1/options", {.summary = "The model that is chosen"}, [&jobs, chosen](const HttpRequest&) {
    return answer_of({{"sd_model_checkpoint", model_of(jobs, *chosen)}});
  });
  server.add("POST", "/sdapi/v1/options", {"Chooses the model", object, object}, [&jobs, chosen](const HttpRequest& r) {
    const nlohmann::json body = json_body(r.body);
    JsonFields f(body);
    if (const auto model = f.text("sd_model_checkpoint", 1000)) chosen->set(jobs.shelf().id_of(*model));
    HttpAnswer answer = answer_of(nlohmann::ordered_json::object());
    answer.header = warning_header(f.unknown());
    return answer;
  });
  server.add("POST", "/sdapi/v1/png-info", {"Reads the texts of a PNG", object, object}, [](const HttpRequest& r) { return png_info(r); });
  add_lists(server, jobs);
}

}  // namespace brume::tools
