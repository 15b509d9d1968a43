/** Pictures that are there, judged: the steps that this asks for, and what becomes of stored scores. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { FileArtifactStore } from '../../src/artifacts/store.ts'
import type { Tools } from '../../src/domains/operation.ts'
import { writePng } from '../../src/domains/postprocessing/png.ts'
import { rejudge, type Rejudged } from '../../src/domains/postprocessing/rejudge.ts'
import { keepScores, keptScores } from '../../src/domains/postprocessing/safety/judgement.ts'
import { Policy } from '../../src/domains/postprocessing/safety/policy.ts'
import { PureMachine } from '../../src/engine/transition.ts'
import { imageCheck } from '../../src/workflows/built-in/image-check.ts'
import { imageRejudge } from '../../src/workflows/built-in/image-rejudge.ts'
import { Course } from '../support/course.ts'

const hash = (digit: string): string => digit.repeat(64)
const picture = { sha256: hash('b'), width: 40, height: 30 }
const outputOf = (course: Course): unknown => (course.document as unknown as { output: unknown }).output
const policyOf = (more: object = {}) => ({
  name: 'p',
  version: 3,
  policy: Policy.parse({ classifiers: ['c'], categories: { violence: { block: 0.5 } }, ...more }),
})

describe('image-check', () => {
  const machine = new PureMachine(imageCheck.machine)
  const policy = { name: 'p', version: 1, categories: { violence: { block: 0.5 } }, rules: [], blockedForS: 9 }
  const asked = (more: object = {}) => ({
    picture,
    policies: [{ ...policy, classifiers: [{ id: 'c', bodyHash: null }], allowUnchecked: false, ...more }],
  })
  const hashed = (input: object) => new Course(machine, input).ends('model.hash', { model: { id: 'c', bodyHash: hash('a') } })

  it('pins its classifiers, looks at the picture, and answers with the verdict', () => {
    const course = hashed(asked())
    const pin = { id: 'c', bodyHash: hash('a') }
    expect(course.open('postprocessing.check').input).toEqual({ ...asked(), classifiers: [pin] })
    const judgement = {
      action: 'block',
      policy: { name: 'p', version: 1 },
      rule: 'category violence',
      score: 0.9,
      passes: 'x',
      fired: [],
      scores: { violence: { score: 0.9, by: 'c' } },
      classifiers: [pin],
    }
    expect(outputOf(course.ends('postprocessing.check', judgement))).toEqual(judgement)
  })

  it('fails with its classifier, unless every policy allows unchecked pictures; never for a picture that is gone', () => {
    expect(outputOf(hashed(asked()).fails('postprocessing.check', 'safety.classifier_broken'))).toBeUndefined()
    const lax = asked({ allowUnchecked: true })
    expect(outputOf(hashed(lax).fails('postprocessing.check', 'safety.classifier_broken'))).toMatchObject({ action: 'allow', scores: {} })
    expect(outputOf(hashed(lax).fails('postprocessing.check', 'artifact.missing'))).toBeUndefined()
  })

  it('needs no device where there is no classifier and none is needed', () => {
    const course = new Course(machine, asked({ classifiers: [], missing: ['c'], allowUnchecked: true }))
    expect(course.document.effects).toEqual({})
    expect(outputOf(course)).toMatchObject({ action: 'allow', unchecked: 'there is no classifier c' })
  })
})

describe('image-rejudge', () => {
  const machine = new PureMachine(imageRejudge.machine)
  const pictures = Array.from({ length: 100 }, (_, i) => ({ ...picture, sha256: i.toString(16).padStart(64, '0') }))
  const verdictsOf = (course: Course, action: 'allow' | 'block'): { verdicts: Rejudged[] } => ({
    verdicts: (course.open('postprocessing.rejudge').input['pictures'] as { sha256: string }[]).map(({ sha256 }) => ({
      sha256,
      was: 'allow',
      action,
      rule: action === 'allow' ? null : 'category violence',
      score: null,
      passes: null,
      why: null,
    })),
  })

  it('by stored scores asks for no device, goes in stretches and counts', () => {
    const input = { pictures, policies: [policyOf({ rules: [{ name: 'k', action: 'flag', words: ['x'], keys: ['a'] }] })], classifiers: [] }
    const course = new Course(machine, input)
    const far = imageRejudge.progress(course.document.context, 'postprocessing.rejudge', 0.5).fraction
    course.ends('postprocessing.rejudge', verdictsOf(course, 'block'))
    expect(far).toBeCloseTo(0.32)
    expect(imageRejudge.progress(course.document.context, 'postprocessing.rejudge', 0).fraction).toBeCloseTo(0.64)
    course.ends('postprocessing.rejudge', verdictsOf(course, 'allow'))
    expect(outputOf(course)).toMatchObject({
      pictures: 100,
      actions: { allow: 36, block: 64 },
      before: { allow: 100 },
      stricter: 64,
      milder: 0,
      open: 0,
      listed: { length: 64 },
      more: 0,
      leftOut: ['p: k'],
    })
  })

  it('anew looks at a stretch first, and judges by what was seen', () => {
    const course = new Course(machine, { pictures, policies: [policyOf()], classifiers: [{ id: 'c', bodyHash: null }] })
    course.ends('model.hash', { model: { id: 'c', bodyHash: hash('a') } })
    const { input } = course.open('postprocessing.score')
    expect(input).toEqual({ pictures: pictures.slice(0, 16), classifiers: [{ id: 'c', bodyHash: hash('a') }] })
    const seen = { scores: { violence: { score: 0.9, by: 'c' } }, problem: null }
    course.ends('postprocessing.score', { pictures: Array.from({ length: 16 }, () => seen) })
    expect(course.open('postprocessing.rejudge').input).toMatchObject({
      classifiers: [{ id: 'c' }],
      pictures: expect.arrayContaining([{ sha256: pictures[15]?.sha256, ...seen }]) as unknown,
    })
    course.ends('postprocessing.rejudge', verdictsOf(course, 'block'))
    expect(course.open('postprocessing.score').input).toMatchObject({ pictures: pictures.slice(16, 32) })
  })
})

describe('scores that are kept beside pictures', () => {
  let folder: string
  let artifacts: FileArtifactStore
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'darkroom-scores-'))
    artifacts = new FileArtifactStore(folder)
  })
  afterAll(() => rm(folder, { recursive: true }))

  /** What a worker gives: a method that needs its object. */
  const tools = () => {
    let told = 0
    class Given {
      readonly artifacts = artifacts
      progress(): void {
        told = this.artifacts === artifacts ? told + 1 : 0
      }
    }
    return new Given() as unknown as Tools
  }
  const classifiers = [{ id: 'c', bodyHash: hash('a') }]
  let made = 0
  /** A picture with this prompt in its receipt, and with scores or none. */
  async function kept(scores?: Record<string, number>, prompt = 'a calm lake', by = 'c'): Promise<string> {
    const parameters = `${prompt}\nSteps: 20, Sampler: DDIM, CFG scale: 3, Seed: ${made++}, Size: 8x8`
    const sha256 = await artifacts.put(await writePng(new Uint8Array(192), 8, 8, { parameters }), 'image')
    const told = Object.fromEntries(Object.entries(scores ?? {}).map(([category, score]) => [category, { score, by }]))
    const was = { action: 'flag' as const, policy: { name: 'old', version: 1 }, rule: 'rule x' }
    if (scores) await keepScores(artifacts, sha256, { scores: told, classifiers, was })
    return sha256
  }
  const verdicts = async (policies: object[], pictures: object[]): Promise<Rejudged[]> =>
    (await rejudge.run({ policies, pictures }, tools())).verdicts
  const verdict = async (sha256: string, more: object = {}): Promise<Rejudged | undefined> =>
    (await verdicts([policyOf(more)], [{ sha256 }]))[0]

  it('are judged by a policy of now, against what was done', async () => {
    expect(await verdict(await kept({ violence: 0.6 }))).toMatchObject({
      was: 'flag',
      action: 'block',
      rule: 'category violence',
      score: 0.6,
      passes: 'a score of violence below 0.5',
    })
    expect(await verdict(await kept({ violence: 0.4 }))).toMatchObject({ was: 'flag', action: 'allow', rule: null, why: null })
  })

  it('leave a picture open that none of them speaks of, or that another classifier has scored', async () => {
    expect(await verdict(await kept())).toMatchObject({ was: null, action: null, why: 'nobody has scored it: judge it anew' })
    const why = 'policy p asks for violence, of which its classifiers have said nothing'
    expect(await verdict(await kept({ hate: 1 }))).toMatchObject({ action: null, why })
    expect(await verdict(await kept({ violence: 0.9 }, 'x', 'other'))).toMatchObject({ action: null, why })
    expect(await verdict(await kept({ hate: 1 }), { allowUnchecked: true })).toMatchObject({ action: 'allow' })
    const sha256 = await kept({ violence: 0.9 })
    await artifacts.putScores(sha256, Buffer.from('{"scores": {"viol'))
    expect(await verdict(sha256)).toMatchObject({ was: null, action: null })
  })

  it('are judged with the prompt that the file tells of, where a rule asks for it', async () => {
    const rules = [{ name: 'no-lakes', action: 'block', words: ['lake'] }]
    expect(await verdict(await kept({ violence: 0 }), { rules })).toMatchObject({ action: 'block', rule: 'rule no-lakes' })
    expect(await verdict(await kept({ violence: 0 }, 'a hill'), { rules })).toMatchObject({ action: 'allow' })
    await keepScores(artifacts, hash('e'), { scores: { violence: { score: 0, by: 'c' } }, classifiers, was: null })
    expect(await verdict(hash('e'), { rules })).toMatchObject({ action: null, why: 'its file is gone, which says its prompt' })
  })

  it('of several policies take the strictest, and what is blocked anyway is not open', async () => {
    const sha256 = await kept({ violence: 0.9 })
    const other = { ...policyOf({ categories: { hate: { block: 0.5 } } }), name: 'q' }
    expect(await verdicts([policyOf(), other], [{ sha256 }])).toMatchObject([{ action: 'block', why: null }])
    const calm = await kept({ violence: 0.1 })
    expect(await verdicts([policyOf(), other], [{ sha256: calm }])).toMatchObject([{ action: null }])
  })

  it('are replaced by those that were seen anew, and what had been done stays known', async () => {
    const sha256 = await kept({ violence: 0.1 })
    const scores = { violence: { score: 0.8, by: 'c' } }
    const [first] = (await rejudge.run({ policies: [policyOf()], classifiers, pictures: [{ sha256, scores, problem: null }] }, tools()))
      .verdicts
    expect(first).toMatchObject({ was: 'flag', action: 'block', score: 0.8 })
    expect(await keptScores(artifacts, sha256)).toMatchObject({ scores, was: { action: 'flag', rule: 'rule x' } })
    const [unseen] = (await rejudge.run({ policies: [policyOf()], pictures: [{ sha256, scores: null, problem: 'torn' }] }, tools()))
      .verdicts
    expect(unseen).toMatchObject({ action: null, why: 'torn' })
  })

  it('go with their picture', async () => {
    const sha256 = await kept({ violence: 0.1 })
    expect(await artifacts.collect((each) => Promise.resolve(each === sha256), 0)).toBeGreaterThan(0)
    expect(await keptScores(artifacts, sha256)).toBeDefined()
    await artifacts.collect(() => Promise.resolve(false), 0)
    expect(await keptScores(artifacts, sha256)).toBeUndefined()
  })
})
