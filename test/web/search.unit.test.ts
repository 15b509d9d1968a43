import { describe, expect, it } from 'vitest'
import type { Session } from '../../src/client/index.ts'
import { isFound, readSearch } from '../../src/web/search.ts'

const session = {
  id: '0-01m8jrevvex14kajmeh314btkk',
  workflow: 'image-generation@1',
  status: 'succeeded',
  input: { model: 'flux/Dev', prompt: 'A red Fox in the snow', negativePrompt: 'fog', seed: 7 },
  output: { images: [{ sha256: 'a', url: '/a', seed: 9 }] },
  tags: ['Cat', 'draft:1'],
  createdAt: '2026-03-05T12:00:00.000Z',
} as unknown as Session
const finds = (line: string): boolean => isFound(session, readSearch(line))

describe('a search line', () => {
  it.each([
    ['nothing, which finds all', ''],
    ['words, whatever their case and order', 'SNOW fox'],
    ['words that stay together', '"red fox"'],
    ['what a picture is to be without', 'fog'],
    ['an id', session.id],
    ['a part of a model', 'model:flux'],
    ['a status by its beginning', 'status:succ'],
    ['a tag', 'tag:cat'],
    ['a tag with a colon', 'tag:draft:1'],
    ['the seed of the request', 'seed:7'],
    ['the seed of a picture', 'seed:9'],
    ['a workflow', 'workflow:image'],
    ['days', 'after:2026-03-04 before:2026-03-07'],
    ['several at once', 'model:flux tag:cat fox'],
    ['a field without a value, which asks nothing', 'tag: fox'],
  ])('finds by %s', (_, line) => expect(finds(line)).toBe(true))

  it.each([
    ['words that are not all there', 'fox rain'],
    ['words in another order that stay together', '"fox red"'],
    ['a part of a tag', 'tag:ca'],
    ['another seed', 'seed:8'],
    ['another day', 'before:2026-03-04'],
    ['what is no day', 'after:soon'],
    ['a field that there is not, which is a word', 'colour:red'],
    ['what a regular expression would match', '.*'],
  ])('does not find by %s', (_, line) => expect(finds(line)).toBe(false))
})
