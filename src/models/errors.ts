import { defineErrors } from '../errors.ts'

export const modelError = defineErrors('model', {
  unknown: {
    class: 'permanent',
    remedy: 'Put the model into a model folder (DARKROOM_MODELS), or name one that GET /v1/models lists.',
  },
  unlisted: { class: 'transient', remedy: 'Try again in a moment: no host has told yet which models it has.' },
  unusable: {
    class: 'permanent',
    remedy: 'Name a model that GET /v1/models lists as `usable`; what keeps this one from it stands there too.',
  },
  corrupt: { class: 'permanent', remedy: 'Fetch the model again; its files do not fit together.' },
  unreadable: { class: 'permanent', remedy: 'Give the user of Darkroom the right to read its files, then retry the session.' },
  missing: { class: 'resource', remedy: 'The step goes to a worker that has the model; put it into a model folder again if none has.' },
  changed: {
    class: 'permanent',
    remedy: 'The files are not those the session was pinned to; restore them or submit a new session.',
  },
  load_failed: { class: 'permanent', remedy: 'Read the worker log for the file that could not be loaded; fetch the model again.' },
})
