/** A share over time as an area, with the levels of pressure as lines. */
const [across, down] = [300, 72] as const
const levels = [0.8, 0.9, 0.95] as const
/** What is shown, ms. */
const shownMs = 300_000

export function Chart({ title, points }: { title: string; points: readonly (readonly [at: number, share: number])[] }) {
  const now = points.at(-1)?.[0] ?? 0
  const recent = points.filter(([at]) => now - at <= shownMs)
  const x = (at: number): number => across - ((now - at) / shownMs) * across
  const y = (share: number): number => down - Math.max(0, Math.min(1, share)) * down
  const line = recent.map(([at, share]) => `${x(at).toFixed(1)} ${y(share).toFixed(1)}`)
  return (
    <svg class="chart" viewBox={`0 0 ${across} ${down}`} preserveAspectRatio="none" role="img" aria-label={title}>
      {levels.map((level) => (
        <line key={level} x1="0" x2={across} y1={y(level)} y2={y(level)} />
      ))}
      {line.length > 0 && <path d={`M${x(recent[0]?.[0] ?? now).toFixed(1)} ${down}L${line.join('L')}V${down}Z`} />}
    </svg>
  )
}
