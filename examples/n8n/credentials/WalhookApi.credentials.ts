import type { IAuthenticateGeneric, ICredentialTestRequest, ICredentialType, INodeProperties } from 'n8n-workflow';

export class WalhookApi implements ICredentialType {
	name = 'walhookApi';

	displayName = 'walhook API';

	documentationUrl = '';

	icon = 'file:../nodes/Walhook/walhook.svg' as const;

	properties: INodeProperties[] = [
		{
			displayName: 'Console Address',
			name: 'address',
			type: 'string',
			default: '',
			placeholder: 'https://walhook.example.com',
			required: true,
			description: 'The address of the walhook console, without a path',
		},
		{
			displayName: 'API Key',
			name: 'apiKey',
			type: 'string',
			typeOptions: { password: true },
			default: '',
			required: true,
			description: 'A key with scope webhooks, from the page API keys of the console',
		},
	];

	authenticate: IAuthenticateGeneric = {
		type: 'generic',
		properties: { headers: { Authorization: '=Bearer {{$credentials.apiKey}}' } },
	};

	test: ICredentialTestRequest = {
		request: { baseURL: '={{$credentials.address}}', url: '/api/v1/me' },
	};
}
