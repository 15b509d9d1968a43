import { describe, expect, it } from 'vitest'
import { isAlive } from '../../host/processes.mjs'

const failing = (code: string) => () => {
  throw Object.assign(new Error(code), { code })
}

describe('a process', () => {
  it('is alive while it exists', () => expect(isAlive(process.pid)).toBe(true))

  it('is alive though it belongs to another user, who must not lose its files or its Redis', () => {
    expect(isAlive(1, failing('EPERM'))).toBe(true)
  })

  it('is not alive when there is none of that id', () => {
    expect(isAlive(1, failing('ESRCH'))).toBe(false)
    expect(isAlive(2 ** 30)).toBe(false)
  })
})
