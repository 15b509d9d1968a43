/** What `darkroom verify` says of a picture that was drawn again. */
import { expect, it } from 'vitest'
import { describe as described } from '../../src/cli/verify.ts'

const verdict = {
  session: 's',
  sha256: { file: 'a'.repeat(64), again: 'b'.repeat(64) },
  exactnessKey: { file: '01234567', again: '01234567' },
  facts: [],
  pixels: 3,
  of: 9,
}

it('one whose bytes are promised and came out otherwise broke a promise, or was changed', () => {
  expect(described({ ...verdict, isSame: false, isPromised: true })).toMatch(/^differs: 3 of 9 pixels\n.*a promise was broken$/)
})

it('one of the class fast promises no bytes, whether they are the same or not', () => {
  const differs = described({ ...verdict, isSame: false, isPromised: false })
  expect(differs).toMatch(/^differs: 3 of 9 pixels\nit is of the class fast, which promises no bytes/)
  expect(differs).not.toMatch(/broken/)
  expect(described({ ...verdict, isSame: true, isPromised: false })).toMatch(/^the same bytes: .*\nit is of the class fast/)
  expect(described({ ...verdict, isSame: true, isPromised: true })).not.toMatch(/fast/)
})
