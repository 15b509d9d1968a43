import { defineErrors } from '../../errors.ts'

export const inferenceError = defineErrors('inference', {
  adapter_unfit: {
    class: 'permanent',
    remedy: 'Leave the adapter out, or name one that was made for a model of this family and size.',
  },
  embedding_unfit: {
    class: 'permanent',
    remedy: 'Leave the embedding out, or name one that was made for the text encoders of this model.',
  },
  preprocessor_broken: {
    class: 'permanent',
    remedy: 'Name another preprocessor, or fetch its folder again; POST /v1/models/NAME/validate reads it whole.',
  },
  diverged: { class: 'permanent', remedy: 'Lower the guidance or choose another sampler; the latents became NaN.' },
  mask_empty: { class: 'permanent', remedy: 'Send a mask that is white where the picture is to be drawn anew.' },
  picture_unreadable: { class: 'permanent', remedy: 'Upload the picture again, and send its new id.' },
  schedule_unfit: {
    class: 'permanent',
    remedy: 'Use another number of steps, or one of the samplers that the message names.',
  },
  request_unfit: { class: 'permanent', remedy: 'Change the field as the message says; a model of this family cannot draw so.' },
  sampler_unknown: { class: 'permanent', remedy: 'Use one of the samplers that GET /v1/workflows/image-generation lists.' },
})
