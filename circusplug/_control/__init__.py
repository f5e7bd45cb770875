"""The host answers circusd's command language, so that circusctl drives it."""
