// What clients of OpenAI's and A1111's APIs rely on, and what clients that leave or misbehave may not change.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "running_server.h"
#include "support/sanitizers.h"
#include "support/small_model.h"

namespace brume::test {
namespace {

class ServeClients : public SmallModel {
 protected:
  static void SetUpTestSuite() {
    SmallModel::SetUpTestSuite();
    server_ = new RunningServer({"m", "--runs", "runs", "--api-key", "secret"}, folder_->path());
  }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
    SmallModel::TearDownTestSuite();
  }
  static std::string bytes_of(const std::string& method, const std::string& path, const std::string& body, const std::string& header = "") {
    return method + " " + path + " HTTP/1.1\r\nHost: " + server_->host() + "\r\nX-Api-Key: secret\r\nConnection: close\r\n" + header +
           (method == "POST" ? "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body : "\r\n");
  }
  static Reply get(const std::string& path) { return server_->send(bytes_of("GET", path, "")); }
  static Reply post(const std::string& path, const nlohmann::json& body) { return server_->send(bytes_of("POST", path, body.dump())); }
  /// Waits until the latest job is in this state.
  static std::string latest(const std::string& state) {
    std::string now;
    for (int i = 0; i < 100 && now != state; ++i) {
      const nlohmann::json jobs = get("/api/v1/jobs?limit=1").json()["jobs"];
      now = jobs.empty() ? "" : jobs[0]["state"].get<std::string>();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return now;
  }
  inline static RunningServer* server_ = nullptr;
};

TEST_F(ServeClients, AClientThatClosesItsHalfGetsItsAnswer) {
  const std::string request = nlohmann::json{{"model", "m"}, {"prompt", "2"}, {"steps", 300}}.dump();
  const Reply reply = server_->send(bytes_of("POST", "/v1/images/generations", request), true);
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.json()["data"].size(), 1u);
}

TEST_F(ServeClients, AClientThatLeavesCancelsItsJob) {
  const nlohmann::json slow{{"model", "m"}, {"prompt", "2"}, {"steps", 1000}, {"n", 8}};
  server_->leave(bytes_of("POST", "/v1/images/generations", slow.dump()));
  EXPECT_EQ(latest("cancelled"), "cancelled");
}

TEST_F(ServeClients, ARemovedJobEndsItsEvents) {
  const std::string id = post("/api/v1/jobs", {{"steps", 1000}, {"count", 8}}).json()["id"];
  std::string events;
  std::thread follower([&] { events = server_->send(bytes_of("GET", "/api/v1/jobs/" + id + "/events", "")).body; });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(server_->send(bytes_of("DELETE", "/api/v1/jobs/" + id, "")).status, 204);
  follower.join();
  EXPECT_NE(events.find("event: progress"), std::string::npos);
  EXPECT_TRUE(server_->alive());
  EXPECT_EQ(get("/api/v1/jobs/" + id).status, 404);
}

TEST_F(ServeClients, TheKeyMayBeAPassword) {
  const auto with = [&](const std::string& words) {
    return server_->send("GET /sdapi/v1/options HTTP/1.1\r\nHost: " + server_->host() + "\r\nConnection: close\r\nAuthorization: Basic " +
                         words + "\r\n\r\n");
  };
  EXPECT_EQ(with("dXNlcjpzZWNyZXQ=").status, 200);  // user:secret
  EXPECT_EQ(with("dXNlcjpzZWNyZXRz").status, 401);  // user:secrets
  EXPECT_EQ(with("c2VjcmV0").status, 401);          // secret
}

TEST_F(ServeClients, ImageKOfA1111HasTheSeedPlusK) {
  const nlohmann::json two{{"prompt", "2"},   {"seed", 5},     {"steps", 3}, {"sampler_name", "DPM++ 2M Karras"},
                           {"batch_size", 2}, {"cfg_scale", 2}};
  const nlohmann::json both = post("/sdapi/v1/txt2img", two).json();
  ASSERT_TRUE(both.contains("images")) << both;
  nlohmann::json one = two;
  one["seed"] = 6, one["batch_size"] = 1;
  const auto text_of = [&](const std::string& png) { return post("/sdapi/v1/png-info", {{"image", png}}).json(); };
  const nlohmann::json second = text_of(both["images"][1]), same = text_of(post("/sdapi/v1/txt2img", one).json()["images"][0]);
  EXPECT_TRUE(
      second["info"].get<std::string>().starts_with("2\nSteps: 3, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 2, Seed: 6, "
                                                    "Size: 8x8, Model: m, Version: brume "))
      << second["info"];
  EXPECT_EQ(second["info"], same["info"]);
  EXPECT_EQ(second["parameters"]["Prompt"], "2");
  EXPECT_EQ(second["parameters"]["Seed"], "6");
  const nlohmann::json info = nlohmann::json::parse(both["info"].get<std::string>());
  EXPECT_EQ(info["all_seeds"], nlohmann::json({5, 6}));
  EXPECT_EQ(info["infotexts"][1], second["info"]);
}

TEST_F(ServeClients, ErrorsHaveTheNamesOfTheirApi) {
  const auto refused = [](const std::string& path, const nlohmann::json& body) {
    const Reply reply = post(path, body);
    EXPECT_EQ(reply.status, 400) << reply.body;
    const nlohmann::json error = reply.json()["error"];
    EXPECT_TRUE(error["message"].get<std::string>().starts_with(error["param"].get<std::string>())) << error;
    return error["param"].get<std::string>();
  };
  EXPECT_EQ(refused("/sdapi/v1/txt2img", {{"prompt", "none"}}), "prompt");
  EXPECT_EQ(refused("/sdapi/v1/txt2img", {{"prompt", "2"}, {"sampler_name", "Eulr"}}), "sampler_name");
  EXPECT_EQ(refused("/v1/images/generations", {{"prompt", "none"}}), "prompt");
  EXPECT_EQ(refused("/v1/images/generations", {{"prompt", "2"}, {"size", "16384x16384"}}), "size");
  EXPECT_EQ(refused("/api/v1/jobs", {{"width", 16384}, {"height", 0}}), "height");
}

TEST_F(ServeClients, WhatA1111HasBesidesIsEmpty) {
  for (const char* name : {"cmd-flags", "embeddings", "scripts", "script-info", "upscalers", "latent-upscale-modes", "sd-vae"})
    EXPECT_EQ(get(std::string("/sdapi/v1/") + name).status, 200) << name;
  EXPECT_EQ(post("/sdapi/v1/refresh-checkpoints", nlohmann::json::object()).status, 200);
}

TEST_F(ServeClients, ASeedAbove2To53ComesBackAsText) {
  EXPECT_EQ(post("/api/v1/jobs", {{"seed", "18446744073709551615"}}).json()["request"]["seed"], "18446744073709551615");
  EXPECT_EQ(post("/api/v1/jobs", {{"seed", "7"}}).json()["request"]["seed"], 7);
}

TEST_F(ServeClients, PluginsHaveTheSchemaOfTheirParameters) {
  const nlohmann::json kinds = get("/api/v1/plugins").json()["kinds"];
  bool found = false;
  for (const nlohmann::json& sampler : kinds["sampler"])
    found = found || (sampler["name"] == "ddim" && sampler["schema"]["properties"].contains("eta"));
  EXPECT_TRUE(found) << kinds["sampler"];
}

TEST_F(ServeClients, AnOpenModelSaysWhatItsSidesAreMultiplesOf) {
  ASSERT_EQ(post("/v1/images/generations", {{"model", "m"}, {"prompt", "2"}}).status, 200);
  const nlohmann::json image = get("/api/v1/models").json()["models"][0]["image"];
  EXPECT_TRUE(image["multiple"].is_number()) << image;
}

TEST_F(ServeClients, APictureThatCannotBeDecodedIsNamedAndItsFolderIsNot) {
  const std::string cut = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAYAAADED76LAAAAD0lEQVR42mP4TwAwjAwFAIS1";
  const Reply reply = post("/sdapi/v1/img2img", {{"prompt", "2"}, {"init_images", nlohmann::json::array({cut})}});
  EXPECT_EQ(reply.status, 400) << reply.body;
  EXPECT_EQ(reply.json()["error"]["param"], "init_images") << reply.body;
  EXPECT_EQ(reply.body.find("runs/"), std::string::npos) << reply.body;
}

TEST_F(ServeClients, FormsThatAreWrongAreRefused) {
  const std::string part = "--B\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n2\r\n";
  const std::string long_head = "--B\r\nContent-Disposition: form-data; name=\"" + std::string(20000, '"') + "\r\n\r\n2\r\n--B--\r\n";
  const std::vector<std::string> wrong{part,
                                       part + "--B",
                                       "junk" + part,
                                       long_head,
                                       "--B--",
                                       "--B\r\n\r\n2\r\n--B--",
                                       "--B\r\nContent-Disposition: form-data\r\n\r\n2\r\n--B--"};
  for (const std::string& body : wrong) {
    const Reply reply = server_->send(bytes_of("POST", "/v1/images/edits", body, "Content-Type: multipart/form-data; boundary=B\r\n"));
    EXPECT_EQ(reply.status, 400) << body.substr(0, 80);
    EXPECT_TRUE(reply.json()["error"]["param"].is_string()) << reply.body;
  }
}

TEST_F(ServeClients, AConnectionHasTimeToAskWhileOthersWait) {
  const int first = server_->connected_to("");
  std::vector<int> crowd;
  for (int i = 0; i < 80; ++i) crowd.push_back(server_->connected_to(""));  // more than are served at once
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const Reply reply = RunningServer::finished(first, bytes_of("GET", "/v1/models", ""));
  for (const int socket : crowd) ::close(socket);
  EXPECT_EQ(reply.status, 200);
}

TEST_F(ServeClients, LongHeadersLeaveNoMemoryBehind) {
  if (sanitized) GTEST_SKIP() << "a sanitizer keeps freed memory for a while";
  const std::string header = "X-Long: " + std::string(8000, 'y') + "\r\n";
  const auto send = [&] { EXPECT_EQ(server_->send(bytes_of("GET", "/v1/models", "", header)).status, 200); };
  for (int i = 0; i < 5; ++i) send();
  const int64_t before = server_->memory();
  for (int i = 0; i < 100; ++i) send();  // more than there are threads
  EXPECT_LT(server_->memory() - before, 20 << 20);
}

TEST_F(ServeClients, ABodyOfTooManyValuesIsRefused) {
  std::string many = "{\"classes\": [0";
  for (int i = 0; i < 100000; ++i) many += ",0";
  const Reply reply = server_->send(bytes_of("POST", "/api/v1/jobs", many + "]}"));
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.json()["error"]["param"], "body") << reply.body;
}

}  // namespace
}  // namespace brume::test
