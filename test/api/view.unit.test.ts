import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { withLinks } from '../../src/api/artifacts/views.ts'
import { present, Time, viewOf } from '../../src/api/view.ts'
import { Count, ImageRef, Instant } from '../../src/domains/values.ts'

const at = Date.UTC(2030, 0, 1)
const text = '2030-01-01T00:00:00.000Z'

const Peak = z.strictObject({ at: Instant, bytes: Count })
const Report = z
  .strictObject({
    since: Instant.describe('by the worker’s clock'),
    until: Instant.nullable(),
    seen: Instant.optional(),
    peaks: z.array(Peak),
    highest: Peak.nullable(),
    bytes: Count,
  })
  .meta({ id: 'ViewTestReport' })

describe('a view', () => {
  it('has ISO 8601 text where the schema has an instant, at any depth', () => {
    const value = { since: at, until: null, peaks: [{ at, bytes: 1 }], highest: { at, bytes: 2 }, bytes: 3 }
    const shown = present(Report, value)
    expect(shown).toEqual({ since: text, until: null, peaks: [{ at: text, bytes: 1 }], highest: { at: text, bytes: 2 }, bytes: 3 })
    expect(viewOf(Report).parse(shown)).toEqual(shown)
    expect(viewOf(Report).safeParse(value).success).toBe(false)
    expect(viewOf(Report).safeParse({ ...shown, more: 1 }).success).toBe(false)
    expect(present(Report, { ...value, until: at, seen: at })).toMatchObject({ until: text, seen: text })
  })

  it('is typed as it is shown', () => {
    const shown: z.infer<ReturnType<typeof viewOf<typeof Report>>> = {
      since: text,
      until: null,
      peaks: [{ at: text, bytes: 1 }],
      highest: { at: text, bytes: 2 },
      bytes: 3,
    }
    // @ts-expect-error -- an instant is text
    const wrong: typeof shown = { ...shown, since: at }
    expect([viewOf(Report).safeParse(shown).success, viewOf(Report).safeParse(wrong).success]).toEqual([true, false])
  })

  it('keeps the name and the descriptions of its schema, and is the same one each time', () => {
    expect(viewOf(Report).meta()).toMatchObject({ id: 'ViewTestReport' })
    expect(viewOf(Report).shape.since.meta()).toMatchObject({ description: 'by the worker’s clock' })
    expect(viewOf(Report)).toBe(viewOf(Report))
    expect(viewOf(Instant)).toBe(Time)
  })

  it('of a schema without instants is that schema', () => {
    const Plain = z.strictObject({ bytes: z.array(Count.nullable()) })
    expect(viewOf(Plain)).toBe(Plain)
  })
})

describe('links', () => {
  it('are part of the view of an artifact', () => {
    const Output = z.strictObject({ images: z.array(ImageRef) })
    const image = { sha256: 'b'.repeat(64), mediaType: 'image/png' as const, width: 1, height: 1, seed: 1, bytes: 1 }
    const shown = present(Output, { images: [image] })
    expect(shown.images[0]?.url).toBe(`/v1/artifacts/${image.sha256}`)
    expect(viewOf(Output).parse(shown)).toEqual(shown)
  })

  const sha256 = 'a'.repeat(64)
  const image = { sha256, mediaType: 'image/png', seed: 1 }

  it('stand in every artifact of an output, wherever it is', () => {
    const url = `/v1/artifacts/${sha256}`
    expect(withLinks({ images: [image], best: { of: image }, count: 1, none: null })).toEqual({
      images: [{ ...image, url }],
      best: { of: { ...image, url } },
      count: 1,
      none: null,
    })
  })

  it('stand nowhere else', () => {
    const output = { hash: { sha256 }, other: { sha256: 'short', mediaType: 'image/png' }, text: sha256, when: [1, 'x'] }
    expect(withLinks(output)).toEqual(output)
  })
})
