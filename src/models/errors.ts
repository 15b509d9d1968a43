import { defineErrors } from '../errors.ts'

export const modelError = defineErrors('model', {
  unknown: {
    class: 'permanent',
    remedy: 'Put the model into a model folder (DARKROOM_MODELS), or name one that `darkroom doctor` lists.',
  },
  corrupt: { class: 'permanent', remedy: 'Fetch the model again; its files do not fit together.' },
  changed: {
    class: 'permanent',
    remedy: 'The files are not those the session was pinned to; restore them or submit a new session.',
  },
  load_failed: { class: 'permanent', remedy: 'Read the worker log for the file that could not be loaded; fetch the model again.' },
})
