import { defineErrors } from '../../errors.ts'

export const errors = defineErrors({
  'inference.diverged': { class: 'permanent', remedy: 'Lower the guidance or choose another sampler; the latents became NaN.' },
  'inference.sampler_unknown': { class: 'permanent', remedy: 'Use one of the samplers that GET /v1/workflows/image-generation lists.' },
})
