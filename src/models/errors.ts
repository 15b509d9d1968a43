import { defineErrors } from '../errors.ts'

export const modelError = defineErrors('model', {
  unknown: {
    class: 'permanent',
    remedy: 'Put the model into a model folder (DARKROOM_MODELS), or name one that GET /v1/models lists.',
  },
  ambiguous: { class: 'permanent', remedy: 'Say which is meant: `kind` of the request, `--kind` of the command.' },
  unlisted: { class: 'transient', remedy: 'Try again in a moment: a host has not told yet which models it has.' },
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
  in_use: {
    class: 'permanent',
    remedy: 'Wait until the sessions that use it have ended, or pause them, then unload it again.',
  },
  pickle_refused: {
    class: 'permanent',
    remedy:
      'Fetch the model as .safetensors. If you trust where this file is from: set DARKROOM_PICKLES=convert on the workers of its host and start them again.',
  },
  not_converted: { class: 'permanent', remedy: 'Fetch the model as .safetensors.' },
  exists: { class: 'permanent', remedy: 'Use the file that is there, or move it away first.' },
  not_stored: { class: 'resource', remedy: 'Give the user of Darkroom the right to write there, and room, then retry the session.' },
  unhashed: { class: 'permanent', remedy: 'Have it hashed with POST /v1/models/{model}/hash, then try again.' },
  annotations_full: { class: 'permanent', remedy: 'Remove annotations that nobody needs any more: DELETE /v1/models/{model}/annotation.' },
  no_picture: {
    class: 'permanent',
    remedy: 'Put a picture beside the model, as NAME.png or NAME.preview.png, or draw one with it.',
  },
  picture_too_large: { class: 'permanent', remedy: 'Put a smaller picture beside the model.' },
  pictures_busy: { class: 'transient', remedy: 'Try again in a moment.' },
  load_failed: { class: 'permanent', remedy: 'Read the worker log for the file that could not be loaded; fetch the model again.' },
})
