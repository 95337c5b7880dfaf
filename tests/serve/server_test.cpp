// brume serve over its sockets: the bits of its images, refused requests, cancelled jobs, restarts.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>

#include "brume/image/image.h"
#include "running_server.h"
#include "support/process.h"
#include "support/small_model.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

std::string from_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text.substr(0, text.find('='))) {
    bits = bits << 6 | uint32_t(digits.find(c));
    if ((count += 6) >= 8) bytes += char(bits >> (count -= 8) & 255);
  }
  return bytes;
}

class Serve : public SmallModel {
 protected:
  static void SetUpTestSuite() {
    SmallModel::SetUpTestSuite();
    server_ = new RunningServer({"m", "--runs", "runs"}, folder_->path());
  }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
    SmallModel::TearDownTestSuite();
  }
  static Image picture(const std::string& id, int k) {
    return read_image((folder_->path() / "runs/images" / id / (std::to_string(k) + ".png")).string());
  }
  static Image sampled(const std::vector<std::string>& options, int k) {
    std::vector<std::string> words{"sample", "m", "--threads", "1", "--precision", "fp32", "-o", "out"};
    words.insert(words.end(), options.begin(), options.end());
    std::filesystem::remove_all(folder_->path() / "out");
    const Finished done = at(words);
    EXPECT_EQ(done.code, 0) << done.err;
    char name[16];
    std::snprintf(name, sizeof name, "%05d.png", k);
    return read_image((folder_->path() / "out" / name).string());
  }
  inline static RunningServer* server_ = nullptr;
};

TEST_F(Serve, EightClientsAtOnceGetTheBitsOfBrumeSample) {
  std::vector<std::string> ids(8);
  std::vector<std::thread> clients;
  for (size_t i = 0; i < ids.size(); ++i)
    clients.emplace_back([&ids, i] {
      const nlohmann::json job = server_->made({{"model", "m"}, {"classes", {"1", "3"}}, {"seed", 7 + i}, {"sampler", "ddpm"}});
      if (job["state"] == "done") ids[i] = job["id"].get<std::string>();
    });
  for (std::thread& c : clients) c.join();
  for (const size_t i : {size_t(0), size_t(5), size_t(7)}) {
    ASSERT_FALSE(ids[i].empty());
    const std::vector<std::string> options{"--classes", "1,3", "--seed", std::to_string(7 + i), "--sampler", "ddpm", "-n", "2"};
    EXPECT_EQ(picture(ids[i], 1), sampled(options, 1)) << i;
  }
}

TEST_F(Serve, ListsModelsWithWhatTheyTake) {
  const nlohmann::json models = server_->get("/api/v1/models").json()["models"];
  ASSERT_EQ(models.size(), 1u);
  EXPECT_EQ(models[0]["id"], "m");
  EXPECT_EQ(models[0]["classes"].size(), 5u);
  EXPECT_EQ(models[0]["image"]["height"], 8);
  EXPECT_EQ(models[0]["defaults"]["steps"], 4);
}

TEST_F(Serve, NamesTheFieldThatIsWrong) {
  const std::pair<const char*, const char*> wrong[] = {{R"({"seed": 1e20})", "seed"},
                                                       {R"({"seed": "x"})", "seed"},
                                                       {R"({"steps": 0})", "steps"},
                                                       {R"({"steps": "many"})", "steps"},
                                                       {R"({"width": 1000000})", "width"},
                                                       {R"({"count": 1000})", "count"},
                                                       {R"({"model": "../m"})", "model"},
                                                       {R"({"sampler": 3})", "sampler"},
                                                       {R"({"image": "?"})", "image"},
                                                       {R"({"image": "AAAA"})", "image"},
                                                       {R"({"mask": "AAAA"})", "mask"},
                                                       {R"({"loras": ["/etc/passwd"]})", "loras"},
                                                       {R"({"strength": 2})", "strength"},
                                                       {R"({"prompts": [1]})", "prompts"},
                                                       {R"({"guidance": "x"})", "guidance"},
                                                       {R"({"settings": ["plugins=[x.so]"]})", "settings"},
                                                       {R"({"guidance": [{"type": "classifier", "model": "/etc/passwd"}]})", "guidance"}};
  for (const auto& [body, field] : wrong) {
    const Reply reply = server_->post("/api/v1/jobs", body);
    EXPECT_GE(reply.status, 400) << body;
    EXPECT_LT(reply.status, 500) << body << reply.body;
    EXPECT_EQ(reply.json()["error"]["param"], field) << reply.body;
  }
  const std::string megabyte(1 << 20, 'a');
  EXPECT_EQ(server_->post("/api/v1/jobs", "{\"prompt\": \"" + megabyte + "\"}").json()["error"]["param"], "prompt");
}

TEST_F(Serve, NamesUnknownFieldsInAHeader) {
  const Reply reply = server_->post("/api/v1/jobs", R"({"step": 2, "classes": ["1"]})");
  EXPECT_EQ(reply.status, 201) << reply.body;
  EXPECT_NE(reply.header.at("brume-warning").find("\"step\""), std::string::npos);
  EXPECT_EQ(server_->ended(reply.json()["id"].get<std::string>())["state"], "done");
}

TEST_F(Serve, SurvivesMalformedRequests) {
  const std::string host = "Host: " + server_->host() + "\r\n";
  const std::string head = "POST /api/v1/jobs HTTP/1.1\r\n" + host;
  std::vector<std::string> all{"\r\n\r\n",
                               "GET\r\n\r\n",
                               "GET / HTTP/9.9\r\n\r\n",
                               std::string(100, '\0'),
                               "GET /%zz HTTP/1.1\r\n" + host + "\r\n",
                               "GET /%ff HTTP/1.1\r\n" + host + "\r\n",
                               "GET /../../etc/passwd HTTP/1.1\r\n" + host + "\r\n",
                               "GET /api/v1/jobs/..%2f..%2fm HTTP/1.1\r\n" + host + "\r\n",
                               "GET /" + std::string(5000, 'a') + " HTTP/1.1\r\n" + host + "\r\n",
                               "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
                               "GET /api/v1/jobs HTTP/1.1\r\n" + host + "Origin: http://evil.example\r\n\r\n",
                               head + "Content-Length: 99999999999\r\n\r\n{}",
                               head + "Content-Length: -1\r\n\r\n{}",
                               head + "Content-Length: 50\r\n\r\n{",
                               head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                               head + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
                               head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
                               head + "Content-Length: 4\r\n\r\n\xff\xfe{}",
                               head + "Content-Length: 2\r\n\r\n[]",
                               "DELETE / HTTP/1.1\r\n" + host + "\r\n",
                               "BREW /api HTTP/1.1\r\n" + host + "\r\n"};
  std::string flood = "GET / HTTP/1.1\r\n" + host;
  for (int i = 0; i < 5000; ++i) flood += "X-" + std::to_string(i) + ": y\r\n";
  all.push_back(flood + "\r\n");
  std::string nested(20000, '[');
  all.push_back(head + "Content-Length: " + std::to_string(nested.size()) + "\r\n\r\n" + nested);
  const std::string whole = head + "Content-Length: 20\r\n\r\n{\"prompt\": \"a\"}     ";
  for (size_t cut = 1; cut < whole.size(); ++cut) all.push_back(whole.substr(0, cut));
  for (const std::string& bytes : all) {
    const Reply reply = server_->send(bytes, true);
    EXPECT_TRUE(reply.status == 0 || (reply.status >= 400 && reply.status < 500)) << reply.status << " of " << bytes.substr(0, 80);
    if (reply.status == 0) continue;
    EXPECT_TRUE(reply.json()["error"].is_object()) << reply.body;
  }
  EXPECT_TRUE(server_->alive());
  EXPECT_EQ(server_->get("/api/v1/models").status, 200);
}

TEST_F(Serve, CancelsWithinOneStepAndTwice) {
  const nlohmann::json job = server_->post("/api/v1/jobs", R"({"steps": 1000, "count": 8})").json();
  const std::string id = job["id"];
  EXPECT_EQ(server_->post("/api/v1/jobs/" + id + "/cancel", "").status, 200);
  EXPECT_EQ(server_->ended(id)["state"], "cancelled");
  EXPECT_EQ(server_->post("/api/v1/jobs/" + id + "/cancel", "").json()["state"], "cancelled");
  EXPECT_EQ(server_->send("DELETE /api/v1/jobs/" + id + " HTTP/1.1\r\nHost: " + server_->host() + "\r\nConnection: close\r\n\r\n").status,
            204);
  EXPECT_EQ(server_->get("/api/v1/jobs/" + id).status, 404);
}

TEST_F(Serve, AnswersAsOpenAiDoes) {
  const Reply reply = server_->post("/v1/images/generations", R"({"model": "m", "prompt": "2", "n": 2, "size": "8x8", "quality": "high"})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.json()["data"].size(), 2u);
  EXPECT_TRUE(reply.json()["data"][0]["b64_json"].get<std::string>().starts_with("iVBOR"));
  EXPECT_EQ(server_->get("/v1/models").json()["data"][0]["id"], "m");
  const nlohmann::json error = server_->post("/v1/images/generations", R"({"model": "mm", "prompt": "2"})").json()["error"];
  EXPECT_EQ(error["code"], "model_not_found");
  EXPECT_EQ(error["type"], "invalid_request_error");
}

TEST_F(Serve, EditsWhereTheMaskIsTransparent) {
  const std::string white = from_base64("iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAYAAADED76LAAAAD0lEQVR42mP4TwAwjAwFAIS1/wHNOWXHAAAAAElFTkSuQmCC");
  const std::string half =
      from_base64("iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAYAAADED76LAAAAFUlEQVR42mPg5ORkQMb/0QDDyFAAAKDpguGpZ2z3AAAAAElFTkSuQmCC");
  const auto edited = [&](const std::string& mask) {
    const auto part = [](const std::string& head, const std::string& content) {
      return "--B\r\nContent-Disposition: form-data; " + head + "\r\n\r\n" + content + "\r\n";
    };
    return server_->post("/v1/images/edits",
                         part("name=\"image\"; filename=\"i.png\"", white) + part("name=\"mask\"; filename=\"m.png\"", mask) +
                             part("name=\"model\"", "m") + part("name=\"prompt\"", "2") + "--B--\r\n",
                         {"Content-Type: multipart/form-data; boundary=B"});
  };
  const Reply reply = edited(half);
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Image image = decode_image_file(from_base64(reply.json()["data"][0]["b64_json"].get<std::string>()), "edited", 1);
  for (int64_t y = 0; y < 8; ++y)
    for (int64_t x = 4; x < 8; ++x) EXPECT_EQ(image.row(y)[x], 255) << "kept";
  EXPECT_NE(std::count(image.pixels.begin(), image.pixels.end(), 255), 64) << "edited";
  EXPECT_EQ(edited(white).json()["error"]["param"], "mask");
}

TEST_F(Serve, AnswersAsA1111Does) {
  const Reply reply =
      server_->post("/sdapi/v1/txt2img", R"({"prompt": "2", "seed": 5, "steps": 3, "sampler_name": "Euler a", "width": 8, "height": 8})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const std::string png = reply.json()["images"][0];
  EXPECT_TRUE(png.starts_with("iVBOR"));
  EXPECT_EQ(nlohmann::json::parse(reply.json()["info"].get<std::string>())["seed"], 5);
  const nlohmann::json texts = server_->post("/sdapi/v1/png-info", nlohmann::json{{"image", png}}.dump()).json();
  EXPECT_NE(texts["items"]["brume"].get<std::string>().find("--seed"), std::string::npos) << texts;
  EXPECT_EQ(server_->get("/sdapi/v1/progress").json()["progress"], 0);
}

TEST_F(Serve, DescribesEveryRoute) {
  const nlohmann::json document = server_->get("/openapi.json").json();
  EXPECT_EQ(document["openapi"], "3.1.0");
  for (const char* path : {"/api/v1/jobs", "/api/v1/jobs/{id}/cancel", "/v1/images/generations", "/sdapi/v1/txt2img", "/api/v1/runs"})
    EXPECT_TRUE(document["paths"].contains(path)) << path;
}

TEST(ServeProcess, KeepsItsHistoryThroughAKill) {
  const TempFolder folder;
  folder.file(
      "waves.yaml",
      "model:\n  image: {channels: 1, height: 8, width: 8}\n  network: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4}\n"
      "train: {data: shapes, batch: 2, steps: 1, preview: {count: 0}}\ncompute: {threads: 1, precision: fp32}\n");
  ASSERT_EQ(run_brume({"train", "waves.yaml", "--out", "runs/w"}, {folder.path()}).code, 0);
  std::string done, running;
  {
    RunningServer server({"--runs", "runs"}, folder.path());
    done = server.made({{"steps", 2}})["id"].get<std::string>();
    running = server.post("/api/v1/jobs", R"({"steps": 1000, "count": 8})").json()["id"].get<std::string>();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_EQ(server.stop(SIGKILL), 128 + SIGKILL);
  }
  std::filesystem::remove(folder.path() / "runs/images/index.sqlite");
  RunningServer server({"--runs", "runs"}, folder.path());
  EXPECT_EQ(server.get("/api/v1/jobs/" + done).json()["state"], "done");
  EXPECT_EQ(server.get("/api/v1/jobs/" + done + "/images/0.png").status, 200);
  EXPECT_EQ(server.get("/api/v1/jobs/" + running).json()["state"], "interrupted");
  server.post("/api/v1/jobs", R"({"steps": 1000, "count": 8})");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(server.stop(SIGTERM), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST(ServeProcess, RefusesWhatItMustNotBegin) {
  const TempFolder folder;
  const Finished open = run_brume({"serve", "--listen", "0.0.0.0", "--port", "0"}, {folder.path()});
  EXPECT_EQ(open.code, 2);
  EXPECT_NE(open.err.find("--api-key"), std::string::npos) << open.err;
  const RunningServer first({}, folder.path());
  const Finished second = run_brume({"serve", "--port", first.host().substr(10)}, {folder.path()});
  EXPECT_EQ(second.code, 2);
  EXPECT_NE(second.err.find("--port"), std::string::npos) << second.err;
}

TEST(ServeProcess, AModelThatCannotBeOpenedIsListedAndNamed) {
  const TempFolder folder;
  folder.file("models/cut.safetensors", "junk");
  const RunningServer server({"models"}, folder.path());
  const nlohmann::json model = server.get("/api/v1/models").json()["models"][0];
  EXPECT_EQ(model["id"], "cut");
  EXPECT_NE(model["error"].get<std::string>(), "");
  const Reply reply = server.post("/v1/images/generations", R"({"model": "cut", "prompt": "a"})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.json()["error"]["param"], "model") << reply.body;
  EXPECT_EQ(reply.json()["error"]["code"], "model_unreadable") << reply.body;
}

TEST(ServeProcess, AsksForItsKey) {
  const TempFolder folder;
  const RunningServer server({"--api-key", "secret"}, folder.path());
  EXPECT_EQ(server.get("/api/v1/models").status, 401);
  EXPECT_EQ(server.get("/").status, 200);
  const std::string request = "GET /api/v1/models HTTP/1.1\r\nHost: " + server.host() + "\r\nConnection: close\r\nAuthorization: Bearer ";
  EXPECT_EQ(server.send(request + "secret\r\n\r\n").status, 200);
  EXPECT_EQ(server.send(request + "secrets\r\n\r\n").status, 401);
}

}  // namespace
}  // namespace brume::test
