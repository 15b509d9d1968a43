import { BadPlace } from '../host/own-folder.mjs'

/** Why set-up cannot go on, in a sentence for its user: shown without a stack. */
export class SetupFailure extends Error {}

/**
 * What is shown of an error that ends set-up: a sentence where it is one for the user, else all of it.
 * @param {any} error @returns {string}
 */
export const wordsOf = (error) =>
  error instanceof SetupFailure || error instanceof BadPlace ? error.message : String(error?.stack ?? error)

/** @param {string} sentence */
export const failure = (sentence) => new SetupFailure(sentence)

const full = /ENOSPC|EDQUOT|No space left on device|Disk quota exceeded/
const unreachable =
  /\b(?:ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT)\b|NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|Failed to establish a new connection|ProxyError/

/**
 * What npm and pip say at length, as one sentence before their own words.
 * @param {string} words
 * @returns {string} empty when the words must speak for themselves
 */
export function causeOf(words) {
  if (full.test(words)) return 'The disk is full. '
  if (unreachable.test(words))
    return 'The package registry cannot be reached: the machine is offline, or npm and pip do not know its proxy. '
  return ''
}

/** @param {string} text @param {number} [count] */
export const lastLines = (text, count = 6) => text.trim().split('\n').slice(-count).join('\n')
