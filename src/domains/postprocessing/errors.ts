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
  upscaler_unfit: { class: 'permanent', remedy: 'Name another upscaler, or a filter such as lanczos.' },
  too_large: { class: 'permanent', remedy: 'Ask for a smaller factor, or name an upscaler of a smaller one.' },
  diverged: { class: 'permanent', remedy: 'Fetch the upscaler again, or name another one.' },
})
