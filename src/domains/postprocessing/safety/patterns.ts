/**
 * What rules look for in prompts. Patterns are RE2's: matched in time linear in the text, whatever they are (Thompson
 * 1968), so none can hold up a submit.
 */
import { RE2JS, RE2JSException } from 're2js'

const flags = RE2JS.CASE_INSENSITIVE | RE2JS.DOTALL
/** Instructions of one pattern's program. */
const mostInstructions = 500

/** Why a pattern cannot be used; undefined when it can. */
export function patternFault(pattern: string): string | undefined {
  try {
    const size = RE2JS.compile(pattern, flags).programSize()
    return size > mostInstructions ? `makes ${size} instructions; ${mostInstructions} are the most: say it shorter` : undefined
  } catch (error) {
    if (error instanceof RE2JSException) return `is no pattern of RE2: ${error.message}`
    throw error
  }
}

/** Instructions of its program; 0 where it is none. */
export function patternSize(pattern: string): number {
  return patternFault(pattern) === undefined ? RE2JS.compile(pattern, flags).programSize() : 0
}

/** One form of what is written alike: compatibility forms, case, and characters that nobody sees. */
const folded = (text: string): string =>
  text
    .normalize('NFKC')
    .replaceAll(/\p{Cf}/gu, '')
    .toLowerCase()

/** Words alone, a blank on each side. */
const inWords = (text: string): string =>
  ` ${
    folded(text)
      .match(/[\p{L}\p{M}\p{N}]+/gu)
      ?.join(' ') ?? ''
  } `

/** Whether one of the texts holds one of these words or phrases, whole. */
export function hasWords(texts: readonly string[], words: readonly string[]): boolean {
  const whole = texts.map(inWords)
  return words.some((word) => {
    const wanted = inWords(word)
    return wanted.trim() !== '' && whole.some((text) => text.includes(wanted))
  })
}

/** Whether the pattern fits a part of one of the texts. */
export function fits(texts: readonly string[], pattern: string): boolean {
  const compiled = RE2JS.compile(pattern, flags)
  return texts.some((text) => compiled.test(folded(text)))
}
