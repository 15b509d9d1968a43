import { defineErrors } from '../../errors.ts'

export const inferenceError = defineErrors('inference', {
  diverged: { class: 'permanent', remedy: 'Lower the guidance or choose another sampler; the latents became NaN.' },
  schedule_unfit: {
    class: 'permanent',
    remedy: 'Use another number of steps, or one of the samplers that the message names.',
  },
  sampler_unknown: { class: 'permanent', remedy: 'Use one of the samplers that GET /v1/workflows/image-generation lists.' },
})
