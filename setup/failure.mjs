/** Why set-up cannot go on, in a sentence for its user: shown without a stack. */
export class SetupFailure extends Error {}

/** @param {string} sentence */
export const failure = (sentence) => new SetupFailure(sentence)
