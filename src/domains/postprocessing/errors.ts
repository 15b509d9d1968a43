import { defineErrors } from '../../errors.ts'

export const postprocessingError = defineErrors('postprocessing', {
  over_limit: { class: 'permanent', remedy: 'Allow more bytes, make the picture smaller, or choose a format that takes fewer.' },
  texts_too_long: { class: 'permanent', remedy: 'Say `metadata: reduce` or `metadata: strip`, or choose PNG.' },
  side_too_long: { class: 'permanent', remedy: 'Choose PNG, or make the picture smaller.' },
  failed: { class: 'transient', remedy: 'The step is tried again; read the message if it happens again.' },
  needs_spandrel: {
    class: 'permanent',
    remedy:
      'Name an ESRGAN or Compact upscaler. For others install the packages spandrel and torchvision where the worker’s Python finds them (DARKROOM_PYTHON says which Python), and start the worker again.',
  },
  needs_onnxruntime: {
    class: 'permanent',
    remedy:
      'Install the package onnxruntime where the worker’s Python finds it (DARKROOM_PYTHON says which Python), and start the worker again.',
  },
  weights_missing: {
    class: 'permanent',
    remedy:
      'Put a restorer as safetensors into a folder `facerestore_models` of a model folder (darkroom models convert makes them of a pickle), and a detector with its manifest into one `face_detectors`; docs/editing.md says which.',
  },
  weights_unfit: { class: 'permanent', remedy: 'Name GFPGAN or RestoreFormer as the restorer, and a YuNet as the detector.' },
  upscaler_unfit: { class: 'permanent', remedy: 'Name another upscaler, or a filter such as lanczos.' },
  too_large: { class: 'permanent', remedy: 'Ask for a smaller factor, or name an upscaler of a smaller one.' },
  diverged: { class: 'permanent', remedy: 'Fetch the upscaler again, or name another one.' },
})
