import { defineErrors } from '../../../errors.ts'

export const safetyError = defineErrors('safety', {
  refused: { class: 'permanent', remedy: 'Change the prompt so that the rule that is named above does not fit it.' },
  policy_unknown: { class: 'permanent', remedy: 'Name a policy and a version that GET /v1/policies lists.' },
  policy_inactive: { class: 'permanent', remedy: 'Have an operator activate a version of the policy first.' },
  policy_conflict: { class: 'permanent', remedy: 'Read the policy again: somebody else has changed it.' },
  policies_full: { class: 'permanent', remedy: 'Add versions to a policy that is there, or use one that is.' },
  nothing_before: { class: 'permanent', remedy: 'Activate the version that is to apply by its number.' },
  unavailable: {
    class: 'permanent',
    remedy: 'Have an operator put the classifier into a folder `classifiers`, or activate a policy without it.',
  },
  classifier_broken: {
    class: 'permanent',
    remedy: 'Have an operator replace the classifier, or activate a policy without it; nothing passes unchecked meanwhile.',
  },
  needs_onnxruntime: {
    class: 'permanent',
    remedy:
      'Install the package onnxruntime where the worker’s Python finds it (DARKROOM_PYTHON says which Python) and start the worker again, or activate a policy without this classifier; nothing passes unchecked meanwhile.',
  },
  withheld: { class: 'permanent', remedy: 'Wait for the end of the session: a policy has to judge its pictures first.' },
})
