# The headers of the API: what programs that embed brume and plugins include as <brume/…>. No other header is installed.
# tests/cli/new_projects.h compiles each of them alone; tests/config/layers_test.cpp checks what they include.
set(BRUME_API_ROOMS config core numerics)  # every header of these but the next ones
set(BRUME_INTERNAL_HEADERS
  config/file_hint.h
  config/inline_yaml.h
  config/out_of_memory.h
  config/scalars.h
  config/shorthand.h
  config/tree.h
  core/boundary.h
  core/control_groups.h
  core/libtorch.h
  core/memory_limit.h
  core/processors.h)
set(BRUME_API_HEADERS
  model.h
  request.h
  data/caption_table.h
  data/latent_shards.h
  data/shapes/reading.h
  data/shapes/world.h
  data/split.h
  diffusion/checkpoint.h
  diffusion/compute.h
  diffusion/configuration.h
  diffusion/options.h
  distributed/world.h
  files/lock.h
  files/mapped_file.h
  files/tar.h
  files/text_file.h
  image/image.h
  image/image_finder.h
  image/resize_crop.h
  nn/blocks/attention_block.h
  nn/blocks/caption_conditioner.h
  nn/blocks/codebook.h
  nn/blocks/edm_block.h
  nn/blocks/edm_unet.h
  nn/blocks/first_stage.h
  nn/blocks/latent_shape.h
  nn/blocks/layers.h
  nn/blocks/pooling.h
  nn/blocks/resblock.h
  nn/blocks/text_encoder.h
  nn/blocks/transformer.h
  nn/blocks/unet.h
  nn/ops/fir_filter.h
  nn/ops/ops.h
  nn/ops/packed_weight.h
  text/clip_tokenizer.h
  text/prompt.h
  text/sentencepiece.h
  train/ema.h
  train/learner.h
  train/loader.h
  train/optimization.h
  train/options.h
  train/trainer.h
  weights/model_weights.h
  weights/safetensors.h
  weights/tensors.h
  weights/weights_file.h)

# Installs them below `destination`, in the folders in which they are included.
function(brume_install_headers destination)
  set(source "${PROJECT_SOURCE_DIR}/framework/brume")
  set(internal "${BRUME_INTERNAL_HEADERS}")
  list(TRANSFORM internal REPLACE "(.+)" "PATTERN;\\1;EXCLUDE")
  foreach(room IN LISTS BRUME_API_ROOMS)
    install(DIRECTORY "${source}/${room}" DESTINATION "${destination}" FILES_MATCHING PATTERN "*.h" ${internal})
  endforeach()
  foreach(header IN LISTS BRUME_API_HEADERS)
    get_filename_component(folder "${header}" DIRECTORY)
    install(FILES "${source}/${header}" DESTINATION "${destination}/${folder}")
  endforeach()
endfunction()
