/** How wide the project's prose is: lines of its pages, and lines of comments in its sources. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

export const maxWidth = 120

/** Files that git knows below some paths, by how their names end. */
const tracked = (root: string, paths: readonly string[], endings: RegExp): string[] =>
  execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '--', ...paths], { cwd: root, encoding: 'utf8' })
    .split('\n')
    .filter((file) => endings.test(file))

type Line = [number: number, text: string]
const linesOf = (text: string): Line[] => text.split('\n').map((line, i) => [i + 1, line])

/** Lines of a page that a writer wraps: no code, no table, no part that a program writes, no link that stands alone. */
export function proseOf(markdown: string): Line[] {
  let isCode = false
  let isWritten = false
  return linesOf(markdown).filter(([, line]) => {
    const isFence = /^\s*(```|~~~)/.test(line)
    if (isFence) isCode = !isCode
    if (/^<!-- .*written by/.test(line)) isWritten = true
    const isProse = !isCode && !isFence && !isWritten && !/^( {4}|\t)|^\s*\|/.test(line)
    if (line.startsWith('<!-- end of')) isWritten = false
    return isProse && !/^\s*(?:[-*] )?(?:!?\[[^\]]*\]\([^)]*\)|<?https?:\S+>?)[.,;]?$/.test(line)
  })
}

/** Lines of a source that hold nothing but a comment or a docstring; rows of tables are left out. */
export function commentsOf(file: string, text: string): Line[] {
  const lines = linesOf(text)
  if (file.endsWith('.lua')) return lines.filter(([, line]) => /^\s*--/.test(line))
  if (file.endsWith('.py')) {
    let isInside = false
    return lines.filter(([, line]) => {
      const quotes = line.split('"""').length - 1
      const opens = /^\s*[rbf]?"""/.test(line)
      const isDocstring = isInside || opens
      if (isInside ? quotes > 0 : opens && quotes === 1) isInside = !isInside
      return isDocstring || /^\s*#/.test(line)
    })
  }
  let isInside = false
  return lines.filter(([, line]) => {
    const opens = /^\s*\/\*/.test(line)
    const isComment = isInside || opens || /^\s*\/\//.test(line)
    if (isInside || opens) isInside = !line.includes('*/')
    return isComment && !/^\s*\* \|/.test(line)
  })
}

/** A sentence for each line that is too wide, with its place. */
export function checkWidth(root: string): string[] {
  const pages = tracked(root, ['*.md'], /^(?!models\/).*\.md$/)
  const sources = tracked(root, ['src', 'python', 'redis', 'setup', 'host', 'test', 'bench', 'bin'], /\.(ts|mjs|py|lua)$/)
  const all = [
    ...pages.map((file) => [file, proseOf(readFileSync(join(root, file), 'utf8'))] as const),
    ...sources.map((file) => [file, commentsOf(file, readFileSync(join(root, file), 'utf8'))] as const),
  ]
  return all.flatMap(([file, lines]) =>
    lines
      .map(([number, text]) => ({ number, width: Array.from(text).length }))
      .filter(({ width }) => width > maxWidth)
      .map(({ number, width }) => `${file}:${number} is ${width} characters wide; prose and comments have at most ${maxWidth}`),
  )
}
