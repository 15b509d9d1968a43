import { setup } from 'xstate'
import { z } from 'zod'
import { describe, expect, it } from 'vitest'
import { operations } from '../../src/domains/index.ts'
import { session } from '../../src/workflows/child-session.ts'
import { checkWorkflows, defineWorkflow, workflows, type Workflow } from '../../src/workflows/index.ts'
import { step } from '../../src/workflows/step.ts'

const naming = (actors: Record<string, ReturnType<typeof step>>): Workflow =>
  defineWorkflow({ name: 'naming', input: z.strictObject({}), machine: setup({ actors }).createMachine({}) })

const refusal = (...added: Workflow[]): string => {
  try {
    checkWorkflows([...workflows, ...added], operations)
    return ''
  } catch (error) {
    expect(error).toMatchObject({ code: 'workflow.broken' })
    return (error as Error).message
  }
}

describe('the names in a workflow', () => {
  it('are operations and workflows that exist, in every built-in one', () => {
    expect(workflows.length).toBeGreaterThan(2)
    expect(refusal()).toBe('')
  })

  it('an operation that does not exist is refused, and the nearest one is named', () => {
    expect(refusal(naming({ 'inference.denoize': step() }))).toBe(
      'naming@1 names operation inference.denoize, which does not exist; did you mean inference.denoise?',
    )
  })

  it('so is a workflow that does not exist, or has another version', () => {
    expect(refusal(naming({ 'image-generation@2': session() }))).toBe(
      'naming@1 names workflow image-generation@2, which does not exist; did you mean image-generation@1?',
    )
  })

  it('nothing is suggested where nothing is near', () => {
    expect(refusal(naming({ 'weather.forecast': step() }))).toBe('naming@1 names operation weather.forecast, which does not exist')
  })

  it('every fault is told at once, two workflows of one name among them', () => {
    const twice = naming({ 'memory.alocate': step() })
    expect(refusal(twice, twice).split('; ')).toEqual(
      expect.arrayContaining(['there are two workflows naming@1', 'did you mean memory.allocate?']),
    )
  })
})
