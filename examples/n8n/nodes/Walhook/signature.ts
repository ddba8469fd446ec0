import { createHmac, timingSafeEqual } from 'node:crypto';

const tolerance = 5 * 60; // seconds by which the clocks may differ

/** Reports whether a request is recent and has a signature with the secret (Standard Webhooks). */
export function isSigned(headers: Record<string, unknown>, body: Buffer, secret: string): boolean {
	const [id, at, signatures] = ['id', 'timestamp', 'signature'].map((name) => String(headers[`webhook-${name}`] ?? ''));
	if (!(Math.abs(Date.now() / 1000 - Number(at)) <= tolerance)) {
		return false;
	}
	const hmac = createHmac('sha256', Buffer.from(secret.replace(/^whsec_/, ''), 'base64'));
	const want = Buffer.from('v1,' + hmac.update(`${id}.${at}.`).update(body).digest('base64'));
	return signatures.split(' ').some((signature) => {
		const sent = Buffer.from(signature);
		return sent.length === want.length && timingSafeEqual(sent, want);
	});
}
