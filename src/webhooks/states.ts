/** The ends of sessions that a webhook is told of, and how far that has come. */
export const endings = ['succeeded', 'failed', 'cancelled'] as const
export type Ending = (typeof endings)[number]

export const deliveryStates = ['pending', 'delivered', 'dead'] as const
export type DeliveryState = (typeof deliveryStates)[number]
