import { defineErrors } from '../../errors.ts'

export const errors = defineErrors({
  'model.load_failed': { class: 'permanent', remedy: 'Read the worker log for the file that could not be loaded; fetch the model again.' },
})
