import { defineErrors } from '../../errors.ts'

export const postprocessingError = defineErrors('postprocessing', {
  write_failed: { class: 'transient', remedy: 'Check the free space of the data folder.' },
})
