/** Routes that are made from workflows: what stands where, and which ones are refused before the API listens. */
import { describe, expect, it } from 'vitest'
import { createMachine } from 'xstate'
import { z } from 'zod'
import { commandRoutes } from '../../src/api/commands.ts'
import type { ApiParts } from '../../src/api/context.ts'
import type { Route } from '../../src/domains/operation.ts'
import { Registry } from '../../src/engine/registry.ts'
import { defineWorkflow, type Workflow } from '../../src/workflows/index.ts'

const rinse: Route = { method: 'post', path: '/tanks/{id}/rinse', params: { id: 'tank' }, body: 'Rinse', answers: 'The water that it took' }

const workflow = (more: Partial<Workflow>): Workflow => ({
  ...defineWorkflow({
    name: 'tank-rinse',
    title: 'Rinse a tank',
    description: 'Until the water is clear.',
    input: z.strictObject({ tank: z.string().describe('which tank'), litres: z.int().min(1).default(2) }),
    output: z.strictObject({ litres: z.int() }).meta({ id: 'TankRinsed' }),
    machine: createMachine({ id: 'tank-rinse' }),
  }),
  ...more,
})

const documentOf = (...workflows: Workflow[]) => {
  const registry = new Registry(workflows, {})
  const routes = commandRoutes({ engine: { workflows: () => registry.infos() } } as unknown as ApiParts)
  return routes.getOpenAPI31Document({ openapi: '3.1.0', info: { title: '', version: '' } })
}

describe('the route of a workflow', () => {
  it('has its words, its field of the path, the other fields as body, and its output as answer', () => {
    const { paths, components } = documentOf(workflow({ route: rinse }))
    const post = paths?.['/tanks/{id}/rinse']?.post
    expect(post).toMatchObject({ summary: 'Rinse a tank', description: 'Until the water is clear.', tags: ['tanks'] })
    expect(post?.parameters).toContainEqual(expect.objectContaining({ name: 'id', in: 'path', description: 'which tank' }))
    expect(post?.requestBody).toMatchObject({
      required: true,
      content: { 'application/json': { schema: { $ref: '#/components/schemas/Rinse' } } },
    })
    expect(components?.schemas?.['Rinse']).toMatchObject({ properties: { litres: { default: 2 } }, additionalProperties: false })
    expect(components?.schemas?.['Rinse']).not.toHaveProperty('properties.tank')
    expect(post?.responses?.['200']).toMatchObject({
      description: 'The water that it took; only with `Prefer: wait`',
      content: { 'application/json': { schema: { $ref: '#/components/schemas/TankRinsed' } } },
    })
  })

  it('is that of its newest version', () => {
    const older = workflow({ route: rinse, title: 'Wipe a tank' })
    const newer = workflow({ route: rinse, version: 2 })
    for (const known of [
      [older, newer],
      [newer, older],
    ])
      expect(documentOf(...known).paths?.['/tanks/{id}/rinse']?.post?.summary).toBe('Rinse a tank')
  })

  it('is left out where the workflow has none', () => expect(documentOf(workflow({})).paths).toEqual({}))

  it.each<[string, Partial<Workflow>, RegExp]>([
    [
      'a field of the path that the input lacks',
      { route: { ...rinse, params: { id: 'pool' } } },
      /tank-rinse names pool, which is no field/,
    ],
    ['fields that stand nowhere', { route: { method: 'delete', path: '/tanks/{tank}', answers: 'Nothing' } }, /no place for litres/],
    ['an input that is no object', { route: rinse, input: z.string() }, /must be an object/],
  ])('is refused with %s', (_, more, words) => {
    expect(() => documentOf(workflow(more))).toThrow(words)
  })
})
