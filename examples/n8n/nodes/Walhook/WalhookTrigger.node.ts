import type {
	IDataObject,
	IHookFunctions,
	IHttpRequestMethods,
	INodeType,
	INodeTypeDescription,
	IWebhookFunctions,
	IWebhookResponseData,
	JsonObject,
} from 'n8n-workflow';
import { NodeApiError, NodeConnectionTypes } from 'n8n-workflow';

import { isSigned } from './signature';

interface Webhook {
	id: number;
	assessment_id: string | null;
	enabled: boolean;
	secret?: string; // only in the answer that created it
}

/** What the node remembers of its subscription. */
interface Subscription extends IDataObject {
	webhookId?: number;
	secret?: string;
}

/** Sends a request to the API. Its errors (problem details, RFC 9457) say what is wrong and what to do. */
async function request<T>(
	hook: IHookFunctions,
	method: IHttpRequestMethods,
	path: string,
	more: { body?: IDataObject; qs?: IDataObject } = {},
) {
	const { address } = await hook.getCredentials<{ address: string }>('walhookApi');
	const { statusCode, body } = await hook.helpers.httpRequestWithAuthentication.call(hook, 'walhookApi', {
		method,
		url: `${address.trim().replace(/\/+$/, '')}/api/v1${path}`,
		json: true,
		returnFullResponse: true,
		ignoreHttpStatusErrors: true,
		...more,
	});
	if (statusCode >= 400) {
		const message = body?.detail ?? `The console answered with status ${statusCode}`;
		throw new NodeApiError(hook.getNode(), (body || {}) as JsonObject, { message, httpCode: String(statusCode) });
	}
	return body as T;
}

/** The filters that the workflow's author has chosen. */
function filters(hook: IHookFunctions) {
	return {
		url: hook.getNodeWebhookUrl('default') as string,
		event_type: hook.getNodeParameter('event') as string,
		assessment_id: (hook.getNodeParameter('assessmentId') as string) || null,
	};
}

async function unsubscribe(hook: IHookFunctions, id: number) {
	await request(hook, 'DELETE', `/webhooks/${id}`);
}

export class WalhookTrigger implements INodeType {
	description: INodeTypeDescription = {
		displayName: 'walhook Trigger',
		name: 'walhookTrigger',
		icon: 'file:walhook.svg',
		group: ['trigger'],
		version: 1,
		subtitle: '={{$parameter["event"]}}',
		description: 'Starts the workflow when a response is created, started, completed or changed',
		defaults: { name: 'walhook Trigger' },
		inputs: [],
		outputs: [NodeConnectionTypes.Main],
		credentials: [{ name: 'walhookApi', required: true }],
		webhooks: [{ name: 'default', httpMethod: 'POST', responseMode: 'onReceived', path: 'webhook' }],
		properties: [
			{
				displayName: 'Event',
				name: 'event',
				type: 'options',
				default: 'response.completed',
				required: true,
				options: [
					{ name: 'Response Changed', value: 'response.changed', description: 'It is finished again' },
					{ name: 'Response Completed', value: 'response.completed', description: 'The assessment is finished for the first time' },
					{ name: 'Response Created', value: 'response.created', description: 'The response is recorded for the first time' },
					{ name: 'Response Started', value: 'response.started', description: 'The first page is saved' },
				],
			},
			{
				displayName: 'Assessment ID',
				name: 'assessmentId',
				type: 'string',
				default: '',
				description: 'Leave it empty for every assessment that the API key may see',
			},
		],
	};

	webhookMethods = {
		default: {
			async checkExists(this: IHookFunctions): Promise<boolean> {
				const known: Subscription = this.getWorkflowStaticData('node');
				const { assessment_id, ...qs } = filters(this);
				const { data } = await request<{ data: Webhook[] }>(this, 'GET', '/webhooks', { qs });
				const found = data.find((webhook) => webhook.id === known.webhookId && webhook.assessment_id === assessment_id);
				return found?.enabled === true && known.secret !== undefined;
			},

			async create(this: IHookFunctions): Promise<boolean> {
				const known: Subscription = this.getWorkflowStaticData('node');
				if (known.webhookId !== undefined) {
					await unsubscribe(this, known.webhookId); // it is disabled, or for another event or assessment
				}
				const body = { ...filters(this), description: `n8n: ${this.getWorkflow().name ?? this.getWorkflow().id}` };
				let webhook = await request<Webhook>(this, 'POST', '/webhooks', { body });
				if (webhook.secret === undefined) {
					// An earlier request has created it, but its answer, with the only copy of the secret, was lost.
					await unsubscribe(this, webhook.id);
					webhook = await request<Webhook>(this, 'POST', '/webhooks', { body });
				}
				known.webhookId = webhook.id;
				known.secret = webhook.secret;
				return true;
			},

			async delete(this: IHookFunctions): Promise<boolean> {
				const known: Subscription = this.getWorkflowStaticData('node');
				if (known.webhookId !== undefined) {
					await unsubscribe(this, known.webhookId);
				}
				delete known.webhookId;
				delete known.secret;
				return true;
			},
		},
	};

	/** Starts the workflow with what arrives, if it is from walhook. */
	async webhook(this: IWebhookFunctions): Promise<IWebhookResponseData> {
		const { secret }: Subscription = this.getWorkflowStaticData('node');
		const headers = this.getHeaderData();
		if (secret === undefined || !isSigned(headers as IDataObject, this.getRequestObject().rawBody, secret)) {
			this.getResponseObject().status(401).send('The signature is wrong, or older than five minutes.').end();
			return { noWebhookResponse: true };
		}
		const item = { ...this.getBodyData(), webhookId: (headers as IDataObject)['webhook-id'] };
		return { workflowData: [this.helpers.returnJsonArray(item)] };
	}
}
