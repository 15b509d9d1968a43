/** Whether a shelf has what is asked for: by name, by body, and by kind what does not draw. */
import { describe, expect, it } from 'vitest'
import type { Entry } from '../../src/models/entry.ts'
import { blank, type Kind } from '../../src/models/verdict.ts'
import { holdingOf } from '../../src/models/wanted.ts'

const hash = (digit: string): string => digit.repeat(64)
const entry = (path: string, name: string, kind: Kind, bodyHash: string | null): Entry =>
  ({
    path,
    name,
    rank: 0,
    verdict: { ...blank('diffusers'), kind },
    drawing: kind === 'checkpoint' ? {} : null,
    identity: bodyHash === null ? null : { bodyHash, sha256: null, shortHash: null },
    unhashable: null,
  }) as unknown as Entry
const shelf = new Map(
  [
    entry('/a', 'same', 'checkpoint', hash('a')),
    entry('/b', 'same', 'controlnet', hash('b')),
    entry('/c', 'edges', 'controlnet', null),
    entry('/d', 'edges', 'lora', hash('d')),
  ].map((each) => [each.path, each]),
)

describe('a shelf', () => {
  it.each<[string, { id: string; bodyHash: string | null; kind?: Kind }, string]>([
    ['a model that draws, by name', { id: 'same', bodyHash: null }, 'yes'],
    ['one that draws, by body, whatever its name is', { id: 'other', bodyHash: hash('a') }, 'yes'],
    ['a body of no model that draws', { id: 'same', bodyHash: hash('b') }, 'other'],
    ['a ControlNet of the same name', { id: 'same', bodyHash: hash('b'), kind: 'controlnet' }, 'yes'],
    ['a ControlNet with another body', { id: 'same', bodyHash: hash('c'), kind: 'controlnet' }, 'other'],
    ['one that has not been hashed, by name', { id: 'edges', bodyHash: null, kind: 'controlnet' }, 'yes'],
    ['one that has not been hashed, by body', { id: 'edges', bodyHash: hash('c'), kind: 'controlnet' }, 'unhashed'],
    ['what is of another kind', { id: 'same', bodyHash: null, kind: 'vae' }, 'no'],
  ])('has %s', (_, wanted, holding) => expect(holdingOf(shelf, wanted)).toBe(holding))
})
