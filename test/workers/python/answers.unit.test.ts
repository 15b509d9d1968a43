/** What a classifier may answer: scores from 0 to 1, and nothing else; all else ends the step before it is read. */
import { describe, expect, it } from 'vitest'
import { decodeReply } from '../../../src/workers/python/protocol.ts'

const scored = (score: string): string => `{"scores": [[{"category": "custom/tested", "score": ${score}}]]}`
const ofPictures = (picture: string): string => `{"pictures": [${picture}]}`
const replied = (action: string, output: string): (() => unknown) => {
  const data = `{"type": "result", "output": ${output}, "files": {}, "stats": {}}`
  return () => decodeReply(Buffer.from(`{"request_id": "1", "action": "postprocessing.${action}", "data": ${data}}`))
}

const noScore = {
  NaN: 'NaN',
  'a text of it': '"NaN"',
  infinity: 'Infinity',
  'less than infinity': '-Infinity',
  null: 'null',
  two: '2',
  'a little more than one': '1.0000001',
  'less than nothing': '-0.1',
  'a text': '"0.1"',
  'what no double holds': '1e400',
  yes: 'true',
  'a list': '[0.1]',
}
const noAnswer = {
  'no list': '{"scores": []}',
  'no scores in it': '{"scores": [[]]}',
  'no output': '{}',
  'scores by name': '{"scores": {"custom/tested": 0.1}}',
  'a score without its category': '{"scores": [[{"score": 0.1}]]}',
  'something more': '{"scores": [[{"category": "a", "score": 0.1}]], "action": "allow"}',
  'a list alone': '[]',
  nothing: 'null',
}

describe('a classifier that answers', () => {
  it('with scores is heard', () => {
    for (const score of ['0', '0.5', '1']) expect(replied('check', scored(score))()).toMatchObject({ kind: 'reply' })
    expect(replied('score', ofPictures('{"scores": [], "problem": "torn"}'))()).toMatchObject({ kind: 'reply' })
  })

  it.each(Object.keys(noScore) as (keyof typeof noScore)[])('%s as a score is not heard', (name) => {
    expect(replied('check', scored(noScore[name]))).toThrow(expect.objectContaining({ code: 'worker.protocol' }) as Error)
    const picture = scored(noScore[name]).replace(/}$/, ', "problem": null}')
    expect(replied('score', ofPictures(picture))).toThrow(expect.objectContaining({ code: 'worker.protocol' }) as Error)
  })

  it.each(Object.keys(noAnswer) as (keyof typeof noAnswer)[])('with %s is not heard', (name) => {
    expect(replied('check', noAnswer[name])).toThrow(expect.objectContaining({ code: 'worker.protocol' }) as Error)
  })
})
