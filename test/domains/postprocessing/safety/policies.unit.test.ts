/** Policies alone: limits, actions, precedence, rules of one's own, and what no policy can take away. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { applied, blocksAtOnce, judged, unscored, type Asked } from '../../../../src/domains/postprocessing/safety/judge.ts'
import {
  actions,
  moderationCategories,
  Policy,
  strictness,
  type AppliedPolicy,
  type Rule,
} from '../../../../src/domains/postprocessing/safety/policy.ts'
import { differences, tried } from '../../../../src/domains/postprocessing/safety/trial.ts'
import { fits, hasWords, patternFault } from '../../../../src/domains/postprocessing/safety/patterns.ts'

const nobody: Asked = { texts: ['a red circle'], keyId: null }
const policy = (more: Record<string, unknown>): Policy => Policy.parse({ classifiers: ['c'], ...more })
const at = (document: Policy, asked = nobody, version = 1): AppliedPolicy =>
  applied({ name: 'p', version }, document, asked, { classifiers: [{ id: 'c', bodyHash: null }] })
const faultsOf = (document: unknown): string[] =>
  (Policy.safeParse(document).error?.issues ?? []).map(({ path, message }) => `${path.join('.')}: ${message}`)

describe('limits', () => {
  const stairs = at(policy({ categories: { violence: { flag: 0.2, blur: 0.5, block: 0.8 } } }))

  it.each([
    [0, 'allow'],
    [0.1999, 'allow'],
    [0.2, 'flag'],
    [0.4999, 'flag'],
    [0.5, 'blur'],
    [0.7999, 'blur'],
    [0.8, 'block'],
    [1, 'block'],
  ])('a score of %d is %s', (violence, action) => expect(judged([stairs], { violence }).action).toBe(action))

  it('a verdict names the rule, the score and what would pass', () => {
    expect(judged([stairs], { violence: 0.9 })).toEqual({
      action: 'block',
      policy: { name: 'p', version: 1 },
      rule: 'category violence',
      score: 0.9,
      passes: 'a score of violence below 0.2',
      fired: [
        {
          rule: 'category violence',
          action: 'block',
          because: [{ category: 'violence', score: 0.9, limit: 0.8 }],
          passes: 'a score of violence below 0.2',
          policy: { name: 'p', version: 1 },
        },
      ],
    })
  })

  it('of several that fire the strictest is the verdict, and all are told', () => {
    const several = at(policy({ categories: { hate: { flag: 0 }, sexual: { blur: 0.1 }, violence: { block: 0.5 } } }))
    const verdict = judged([several], { hate: 0, sexual: 0.2, violence: 0.6 })
    expect(verdict.action).toBe('block')
    expect(verdict.fired.map(({ action }) => action)).toEqual(['block', 'blur', 'flag'])
  })

  it('a category that nobody scores is named, so that nothing passes for want of a score', () => {
    const document = policy({
      categories: { violence: { flag: 0.5 } },
      rules: [{ name: 'r', action: 'flag', any: [{ category: 'custom/x', atLeast: 0.5 }] }],
    })
    expect(unscored(at(document), { sexual: 1 })).toEqual(['violence', 'custom/x'])
    expect(unscored(at(document), { violence: 0, 'custom/x': 0 })).toEqual([])
  })
})

describe('sexual/minors', () => {
  it('blocks under every policy that any classifier scores it for', () => {
    const bland = at(policy({ categories: { violence: { flag: 0.9 } } }))
    expect(judged([bland], { violence: 0, 'sexual/minors': 0.5 })).toMatchObject({ action: 'block', rule: 'category sexual/minors' })
    expect(judged([bland], { violence: 0, 'sexual/minors': 0.49 }).action).toBe('allow')
  })

  it.each([{ flag: 0.5 }, { blur: 0.1, block: 0.2 }, { block: 0.51 }])('cannot be given %j', (limits) => {
    expect(faultsOf({ classifiers: ['c'], categories: { 'sexual/minors': limits } })).toEqual([
      'categories.sexual/minors: can only be blocked, from a score of 0.5 or less',
    ])
  })

  it('can be held to a lower limit', () => {
    const stricter = at(policy({ categories: { 'sexual/minors': { block: 0.1 } } }))
    expect(judged([stricter], { 'sexual/minors': 0.1 }).action).toBe('block')
  })
})

describe('rules of one’s own', () => {
  const rule = (more: Record<string, unknown>) => policy({ rules: [{ name: 'own', action: 'block', ...more }] })

  it('a combination needs all of its scores, and one of `any`', () => {
    const document = rule({
      all: [
        { category: 'sexual', atLeast: 0.4 },
        { category: 'violence', atLeast: 0.3 },
      ],
      any: [
        { category: 'hate', atLeast: 0.1 },
        { category: 'illicit', atLeast: 0.1 },
      ],
    })
    const scores = { sexual: 0.4, violence: 0.3, hate: 0, illicit: 0.1 }
    expect(judged([at(document)], scores)).toMatchObject({
      action: 'block',
      rule: 'rule own',
      passes: 'a score of sexual below 0.4, or of violence below 0.3, or of illicit below 0.1',
    })
    for (const category of ['sexual', 'violence', 'illicit'] as const)
      expect(judged([at(document)], { ...scores, [category]: scores[category] - 0.01 }).action).toBe('allow')
  })

  it.each([
    ['Gore', 'a lot of GORE, please', true],
    ['gore', 'a category of things', false],
    ['dead body', 'a dead, body', true],
    ['dead body', 'a deadbody', false],
    ['größe', 'GRÖẞE', true],
    ['gore', 'ｇｏｒｅ', true],
    ['gore', 'go\u200Bre', true],
    ['血', '血', true],
    ['!!', 'anything!!', false],
  ])('the word %j in %j: %s', (word, text, isThere) => expect(hasWords([text], [word])).toBe(isThere))

  it('with words or a pattern alone it refuses a prompt before anything is drawn', () => {
    const document = rule({ words: ['gore'], pattern: 'red\\s+circle' })
    expect(blocksAtOnce(document, { texts: ['a circle', 'red  circle with gore'], keyId: null })?.name).toBe('own')
    expect(blocksAtOnce(document, { texts: ['a red circle'], keyId: null })).toBeUndefined()
    expect(
      blocksAtOnce(rule({ words: ['gore'], any: [{ category: 'hate', atLeast: 0 }] }), { texts: ['gore'], keyId: null }),
    ).toBeUndefined()
  })

  it('for a key it falls away for others', () => {
    const document = rule({ any: [{ category: 'hate', atLeast: 0 }], keys: ['k1'] })
    expect(at(document, { ...nobody, keyId: 'k1' }).rules).toHaveLength(1)
    for (const keyId of ['k2', null]) expect(at(document, { ...nobody, keyId }).rules).toEqual([])
  })

  it.each([
    ['(?=a)b', /^is no pattern of RE2: /],
    ['(a)\\1', /^is no pattern of RE2: /],
    ['[', /^is no pattern of RE2: /],
    ['(x{1,1000}){1,1000}', /^is no pattern of RE2: .*too large/],
    ['a{1,900}b{1,900}', /^makes \d+ instructions; 500 are the most/],
  ])('the pattern %s is refused', (pattern, why) => expect(patternFault(pattern)).toMatch(why))

  it('names what is wrong with a policy, by field', () => {
    const condition = { category: 'hate', atLeast: 0.5 }
    expect(faultsOf({ classifiers: [], categories: { hate: { flag: 1.5 } } }).join('\n')).toMatch(
      /classifiers: must name at least one[\s\S]*categories\.hate\.flag/,
    )
    expect(faultsOf({ classifiers: ['c'] })).toEqual(['categories: must name a category, where there is no rule'])
    expect(faultsOf({ classifiers: ['c'], categories: { Hate: { flag: 0.5 } } }).join()).toMatch(/categories\.Hate/)
    expect(faultsOf({ classifiers: ['c'], categories: { hate: { flag: 0.5, block: 0.4 } } }).join()).toMatch(/flag the lowest/)
    expect(faultsOf({ classifiers: ['c'], categories: { hate: {} } }).join()).toMatch(/must say a score/)
    expect(faultsOf({ classifiers: ['c'], rules: [{ name: 'a', action: 'allow', all: [condition] }] }).join()).toMatch(/rules\.0\.action/)
    expect(faultsOf({ classifiers: ['c'], rules: [{ name: 'a', action: 'flag' }] }).join()).toMatch(/must name scores/)
    const twice = { name: 'a', action: 'flag', all: [condition] }
    expect(faultsOf({ classifiers: ['c'], rules: [twice, twice] })).toEqual(['rules.1.name: there is another rule a'])
    expect(faultsOf({ classifiers: ['c', 'c'], rules: [twice] })).toEqual(['classifiers.1: stands twice'])
  })
})

const score = fc.double({ min: 0, max: 1, noNaN: true })
const category = fc.constantFrom(...moderationCategories, 'custom/a', 'custom/b')
const condition = fc.record({ category, atLeast: score })
const text = fc.oneof(fc.string({ maxLength: 60, unit: 'grapheme' }), fc.constantFrom('gore', 'a red circle', '(gore:1.2)', 'GO\u00ADRE'))
const rules = fc.uniqueArray(
  fc.record(
    {
      name: fc.stringMatching(/^[a-z]{1,8}$/),
      action: fc.constantFrom('flag', 'blur', 'block'),
      all: fc.array(condition, { minLength: 1, maxLength: 3 }),
      any: fc.array(condition, { minLength: 1, maxLength: 3 }),
      words: fc.array(
        text.filter((word) => word.trim() !== ''),
        { minLength: 1, maxLength: 3 },
      ),
      keys: fc.array(fc.constantFrom('k1', 'k2'), { minLength: 1, maxLength: 2 }),
    },
    { requiredKeys: ['name', 'action', 'all'] },
  ),
  { selector: ({ name }) => name, maxLength: 6 },
)
const limits = fc
  .array(score, { minLength: 3, maxLength: 3 })
  .map((three) => three.toSorted((a, b) => a - b))
  .map(([flag, blur, block]) => ({ flag, blur, block }))
const categories = fc.dictionary(
  category.filter((name) => name !== 'sexual/minors'),
  limits,
  { minKeys: 1, maxKeys: 4 },
)
const documents = fc.record({ classifiers: fc.constant(['c']), categories, rules }).map((given) => Policy.parse(given))
const scoreSets = fc.dictionary(category, score)
const askers = fc.record({ texts: fc.array(text, { minLength: 1, maxLength: 3 }), keyId: fc.constantFrom(null, 'k1', 'k2') })

describe('of any policy', () => {
  it('the verdict is the strictest action of what fires, and names it', () => {
    fc.assert(
      fc.property(documents, scoreSets, askers, (document, scores, asked) => {
        const verdict = judged([at(document, asked)], scores)
        expect(verdict.action).toBe(actions[Math.max(0, ...verdict.fired.map(({ action }) => strictness(action)))])
        expect(verdict.rule === null).toBe(verdict.action === 'allow')
        for (const { because } of verdict.fired) for (const each of because) expect(each.score).toBeGreaterThanOrEqual(each.limit)
        // Told by hand, from the document itself.
        const byHand = document.rules.filter((rule) => firesByHand(rule, scores, asked))
        expect(verdict.fired.filter(({ rule }) => rule.startsWith('rule ')).length).toBe(byHand.length)
      }),
      { numRuns: 600 },
    )
  })

  it('another policy beside it never makes it milder, nor does a further rule', () => {
    fc.assert(
      fc.property(documents, documents, scoreSets, askers, (one, other, scores, asked) => {
        const alone = judged([at(one, asked)], scores)
        const both = judged([at(one, asked), at(other, asked)], scores)
        expect(strictness(both.action)).toBeGreaterThanOrEqual(strictness(alone.action))
        const merged = Policy.safeParse({
          ...one,
          rules: [...one.rules, ...other.rules.map((rule) => ({ ...rule, name: `x${rule.name}`.slice(0, 9) }))],
        })
        if (!merged.success) return
        expect(strictness(judged([at(merged.data, asked)], scores).action)).toBeGreaterThanOrEqual(strictness(alone.action))
      }),
      { numRuns: 300 },
    )
  })

  it('a higher score never makes it milder', () => {
    fc.assert(
      fc.property(documents, scoreSets, askers, category, (document, scores, asked, name) => {
        const lower = judged([at(document, asked)], scores)
        const higher = judged([at(document, asked)], { ...scores, [name]: 1 })
        expect(strictness(higher.action)).toBeGreaterThanOrEqual(strictness(lower.action))
      }),
      { numRuns: 300 },
    )
  })

  it('what would pass, passes', () => {
    fc.assert(
      fc.property(categories, scoreSets, (own, scores) => {
        const whole = at(policy({ categories: own }))
        const { fired } = judged([whole], scores)
        const lowered = { ...scores }
        for (const { passes, because } of fired) {
          const below = Number(/below ([\d.e-]+)$/.exec(passes)?.[1])
          const [{ category: name } = { category: '' }] = because
          lowered[name] = below - Number.EPSILON
        }
        if (Object.values(lowered).every((each) => each >= 0)) expect(judged([whole], lowered).action).toBe('allow')
      }),
      { numRuns: 300 },
    )
  })
})

function firesByHand({ all = [], any, words, keys }: Rule, scores: Record<string, number>, { texts, keyId }: Asked): boolean {
  const has = (each: { category: string; atLeast: number }) => {
    const found = scores[each.category]
    return found !== undefined && found >= each.atLeast
  }
  if (!all.every(has)) return false
  if (any && !any.some(has)) return false
  if (keys && !keys.includes(keyId ?? '')) return false
  return words === undefined || words.some((word) => hasWords(texts, [word]))
}

describe('hostile patterns', () => {
  /** What backtracking engines take exponential time for. */
  const bombs = ['(a+)+$', '(a|a)*b', '(a|aa)+$', '(.*a){12}b', '((a*)*)*b', '(?:a?){30}a{30}', '(x+x+)+y', '^(([a-z])+.)+[A-Z]$']

  it.each(bombs)('%s says within its instructions times the text what it says', (pattern) => {
    expect(patternFault(pattern)).toBeUndefined()
    expect(typeof fits(['a'.repeat(8000)], pattern)).toBe('boolean')
  })

  it('of any kind takes time by the length of the text, and no more', () => {
    const patterns = fc.sample(
      fc
        .array(fc.constantFrom('(a+)+', '(a|aa)*', '(.*a)', '[a-z]{1,9}', '(?:a?)', 'x*', '(b|[^c])*', '.', '(a*b?)*'), {
          maxLength: 8,
          minLength: 1,
        })
        .map((parts) => `${parts.join('')}$`)
        .filter((pattern) => patternFault(pattern) === undefined),
      { numRuns: 500, seed: 7 },
    )
    const timed = (length: number): number => {
      const text = ['a'.repeat(length)]
      const from = performance.now()
      for (const pattern of patterns) fits(text, pattern)
      return performance.now() - from
    }
    timed(50)
    // Of one run, so that a busy machine slows both: what backtracks takes longer by powers, and would never come back.
    const [short, long] = [timed(200), timed(1600)]
    expect(long / short).toBeLessThan(8 * 4)
  })

  it('any text is a pattern or is refused with its reason, and nothing is thrown', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 20 }), fc.string({ maxLength: 200, unit: 'binary' }), (pattern, given) => {
        const fault = patternFault(pattern)
        if (fault === undefined) expect(typeof fits([given], pattern)).toBe('boolean')
        else expect(fault).toMatch(/^(is no pattern of RE2|makes \d+ instructions)/)
      }),
      { numRuns: 500 },
    )
  })
})

describe('a trial', () => {
  const before = policy({ categories: { hate: { block: 0.9 } } })
  const after = policy({ categories: { hate: { block: 0.5 } }, rules: [{ name: 'w', action: 'block', words: ['gore'] }] })
  const samples = [
    { name: 'calm', scores: { hate: 0.1 }, prompt: '', keyId: null, expected: 'allow' as const },
    { name: 'middle', scores: { hate: 0.6 }, prompt: '', keyId: null, expected: 'allow' as const },
    { name: 'worst', scores: { hate: 0.95 }, prompt: '', keyId: null, expected: 'block' as const },
    { name: 'said', scores: { hate: 0 }, prompt: 'gore', keyId: null },
    { name: 'bare', scores: {}, prompt: '', keyId: null },
  ]

  it('counts what was expected against what comes of it, and what changes', () => {
    const found = tried({ name: 'p', version: 2, policy: after }, { name: 'p', version: 1, policy: before }, samples)
    expect(found).toMatchObject({
      samples: 5,
      actions: { allow: 2, block: 3 },
      asExpected: 2,
      unscored: [{ category: 'hate', samples: 1 }],
    })
    expect(found.confusion.allow).toEqual({ allow: 1, flag: 0, blur: 0, block: 1 })
    expect(found.wrong).toEqual([
      { sample: 1, name: 'middle', expected: 'allow', action: 'block', rule: 'category hate', passes: 'a score of hate below 0.5' },
    ])
    expect(found.changes).toMatchObject({ version: 1, stricter: 2, milder: 0 })
    expect(found.changes?.first.map(({ name }) => name)).toEqual(['middle', 'said'])
  })

  it('tells what two versions say otherwise, and nothing else', () => {
    expect(differences(before, before)).toEqual([])
    expect(differences(before, after)).toEqual([
      { at: 'categories.hate', from: { block: 0.9 }, to: { block: 0.5 } },
      { at: 'rules.w', from: null, to: { action: 'block', name: 'w', words: ['gore'] } },
    ])
  })
})
