// A single first stage: AutoencoderKL and VQModel of latent-diffusion and taming-transformers, or a Stable Diffusion file's without the
// rest of it.
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/tree.h"
#include "brume/interop/import/families.h"
#include "brume/interop/import/ldm_reading.h"

namespace brume {
namespace {

constexpr std::string_view own_level = "encoder.down.0.block.0.", stage_level = "first_stage_model.encoder.down.0.block.0.";

bool knows_first_stage(const Source& source) { return any_begins(source.tensors, own_level) || any_begins(source.tensors, stage_level); }

/// Returns the size of its images. If no level attends, weights are the same for all sizes.
int64_t size_of(LdmReading& r, const LdmFirstStage& stage) {
  if (const auto said = r.integer("size", "ddconfig.resolution"); said && *said > 0) return *said;
  if (std::find(stage.attention.begin(), stage.attention.end(), true) != stage.attention.end())
    r.refuse("the size of its images, which decides which levels attend, is not in it: size=PIXELS says it, or its YAML");
  constexpr int64_t usual = 256;
  r.losses.push_back(fmt::format("not in the file: the size of its images; {} is taken, and any other will do (size=PIXELS)", usual));
  return usual;
}

Imported import_first_stage(const Source& source, const ImportOptions& options) {
  LdmReading r(source, options);
  const bool inner = !any_begins(source.tensors, own_level);
  const ModuleTensors stage(source.tensors, inner ? std::string(first_stage_prefix) : "");
  const LdmFirstStage first_stage = r.of_tensors([&] { return read_ldm_first_stage(stage); });
  const int64_t size = size_of(r, first_stage);
  Imported result;
  result.section = "autoencoder";
  for (const NamedTensor& t : ldm_first_stage_tensors(stage))
    for (const char* part : {"encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize."})
      if (t.name.starts_with(part)) result.tensors.push_back({"autoencoder." + t.name, t.tensor});
  if (any_begins(source.tensors, "loss.") || any_begins(source.tensors, "first_stage_model.loss."))
    r.losses.push_back("the losses the first stage was trained with (its discriminator, LPIPS)");
  if (any_begins(source.tensors, "model_ema.")) r.losses.emplace_back("the moving averages of the weights (model_ema)");
  const double scale = r.setting("scale_factor") ? *r.number("scale_factor", "") : 1;
  result.options =
      section_of(map_of({{"image", image_of(first_stage.image_channels, size, size)}, {"network", first_stage.options(size, scale)}}),
                 source.path.string());
  result.losses = std::move(r.losses);
  return result;
}

}  // namespace

const Family compvis_first_stage{"first stage of latent diffusion", knows_first_stage, import_first_stage};

}  // namespace brume
