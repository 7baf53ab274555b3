SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#docs',
  deepLinking: true,
  validatorUrl: null, // else the page's address goes to a validator on the internet
  queryConfigEnabled: false, // no ?url= of somebody else's document under our name
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
});
